"""What the fleet broker is to retain: published when it changes, and again when the broker forgot.

The registry is the truth; each change has a stamp that rises. On a topic of its own the service
retains the stamp up to which it has published, the mark. A broker that lost its memory has lost the
mark too, and one that came back with an older memory has an older mark: what is newer than the mark
is published again, and nothing else is.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from broker.core.records import Retained
from broker.ports import FleetMemory, Publisher, Registry
from broker.protocol.topics import RETAINED_MARK
from broker.protocol.zones import Zone

COUNTER: Final = "retained"
_PAGE: Final = 500


class RetainedMessages:
    """Keeps the fleet broker's memory in step with the registry."""

    def __init__(self, registry: Registry, publisher: Publisher, memory: FleetMemory) -> None:
        self._registry = registry
        self._publisher = publisher
        self._memory = memory
        self._session: int | None = None
        self._marked = 0
        self._next = (1, "")

    async def bring_up_to_date(self) -> int:
        """Publishes what the broker doesn't have; returns how many messages that were.

        Raises:
            PublishError: the broker has gone; the next call goes on where this one ended.
        """
        session = self._memory.session
        if session is None:
            return 0
        if session != self._session:
            self._start_after(await self._memory.mark())
            self._session = session
        newest = await self._registry.read(lambda tx: tx.counter(COUNTER))
        if self._marked > newest:  # the registry is a backup, older than the broker's memory
            self._start_after(0)
        if self._marked == newest:
            return 0
        published = await self._publish_all()
        # What was written since `newest` was read may be published too; the next call sees to it.
        await self._publisher.publish(Zone.FLEET, RETAINED_MARK, str(newest).encode(), retain=True)
        self._marked = newest
        return published

    def _start_after(self, mark: int) -> None:
        self._marked = mark
        self._next = (mark + 1, "")

    async def _publish_all(self) -> int:
        published = 0
        while page := await self._page():
            await self._publish(page)
            self._next = (page[-1].stamp, page[-1].topic)
            published += len(page)
        return published

    async def _page(self) -> list[Retained]:
        stamp, topic = self._next
        return await self._registry.read(lambda tx: tx.retained_after(stamp, topic, _PAGE))

    async def _publish(self, page: Sequence[Retained]) -> None:
        sent = [
            self._publisher.publish(Zone.FLEET, each.topic, each.payload, retain=True)
            for each in page
        ]
        for outcome in await asyncio.gather(*sent, return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
