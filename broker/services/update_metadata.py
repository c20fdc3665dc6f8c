"""TUF's metadata on the fleet's broker, as it was published.

A device that reads while it changes must find, for every file that it has read, those to which that
one points: so the timestamp comes last, and what a newer one replaced stays for a while.
"""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

from broker.ports.clock import Clock
from broker.ports.registry import Registry, WriteTransaction
from broker.ports.updates import UpdateCode, UpdateError, UpdateRepository
from broker.protocol import limits
from broker.protocol.topics import UPDATE_METADATA, metadata_topic

GRACE: Final = timedelta(hours=1)
"""How long a file that nothing points to any more stays: longer than any device reads."""
_TIMESTAMP: Final = "timestamp.json"
_BRANCH: Final = f"{UPDATE_METADATA}/"


class UpdateMetadata:
    """Keeps what is retained in step with the repository; the service's chore."""

    def __init__(self, registry: Registry, repository: UpdateRepository, clock: Clock) -> None:
        self._registry = registry
        self._repository = repository
        self._clock = clock
        self._needless_since: dict[str, float] = {}
        self._published: Mapping[str, bytes] = {}

    async def bring_up_to_date(self) -> bool:
        """Signs anew what is due and has it all retained; whether anything changed.

        Raises:
            UpdateError: the repository can't be read or signed; what is retained stays.
        """
        files = await asyncio.to_thread(self._refreshed)
        _refuse_large(files)
        changed = files != self._published
        if changed:
            await self._registry.write(lambda tx: _retain(tx, files))
            self._published = files
        return await self._clear(files) or changed

    def _refreshed(self) -> Mapping[str, bytes]:
        self._repository.refresh(self._clock.now())
        return dict(self._repository.files())

    async def _clear(self, files: Mapping[str, bytes]) -> bool:
        topics = await self._registry.read(lambda view: view.retained_below(_BRANCH))
        now_s = self._clock.monotonic()
        needless = [each for each in topics if each.removeprefix(_BRANCH) not in files]
        # A restart begins to count anew; then they stay a little longer.
        self._needless_since = {topic: self._needless_since.get(topic, now_s) for topic in needless}
        over = [
            topic
            for topic, since_s in self._needless_since.items()
            if now_s - since_s >= GRACE.total_seconds()
        ]
        if over:
            await self._registry.write(lambda tx: tx.retain(dict.fromkeys(over, b"")))
        return bool(over)


def _retain(tx: WriteTransaction, files: Mapping[str, bytes]) -> None:
    """With a stamp for each step: what has a lower one is published first."""
    for names in _in_order(files):
        tx.retain({metadata_topic(name): files[name] for name in names})


def _in_order(files: Mapping[str, bytes]) -> list[list[str]]:
    """Roots, what snapshots point to, snapshots, the timestamp."""
    kinds: list[list[str]] = [[], [], [], []]
    for name in sorted(files):
        bare = name.split(".", 1)[1] if name[0].isdigit() else name
        place = {"root.json": 0, "snapshot.json": 2, _TIMESTAMP: 3}.get(bare, 1)
        kinds[place].append(name)
    return [names for names in kinds if names]


def _refuse_large(files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        if len(content) > limits.MAX_METADATA:
            raise UpdateError(
                UpdateCode.METADATA_TOO_LARGE,
                f"{name} has {len(content):,} bytes, more than fit into one message",
                "delegate to more roles, or remove images that nobody installs any more",
            )
