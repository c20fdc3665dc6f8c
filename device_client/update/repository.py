"""TUF's client workflow (specification 1.0.34, section 5) over any source of files."""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeVar

from msgspec import UnsetType

from broker.protocol import limits
from device_client.disk import on_disk
from device_client.finishing import to_its_end
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.delegations import speaking_for
from device_client.update.metadata import TargetFile, Targets
from device_client.update.sources import MetadataSource
from device_client.update.store import MetadataStore, file_name
from device_client.update.trusted import MAX_TIMESTAMP, Trusted

log = logging.getLogger(__name__)

_UsedT = TypeVar("_UsedT")

MAX_ROOTS: Final = 256
"""How many roots are followed at once; the next refresh goes on."""
MAX_ROLES: Final = 32
"""How many delegated roles are asked about one path."""


class Repository:
    """The repository as this device sees it; what it says is verified."""

    def __init__(self, store: MetadataStore, source: MetadataSource) -> None:
        self._store = store
        self._source = source

    async def refresh(self, now: datetime) -> Trusted:
        """The newest metadata of the top-level roles, each kept as soon as it's trusted.

        Raises:
            UpdateRefused: some of it isn't to be trusted, or isn't there.
            StateUnusable: what is trusted can't be kept.
        """
        trusted = await to_its_end(on_disk(self.recall, now))
        await self._follow_roots(trusted)
        trusted.check_root()
        await self._renew_timestamp(trusted)
        await self._renew_snapshot(trusted)
        await self._targets(trusted, "targets", "root")
        return trusted

    async def find(self, trusted: Trusted, path: str) -> TargetFile | None:
        """What the most trusted role that knows `path` says of it; none when none does.

        Raises:
            UpdateRefused: a role that speaks for it can't be had or trusted.
        """
        to_ask, asked = [("targets", "root")], set[str]()
        while to_ask and len(asked) <= MAX_ROLES:
            role, delegator = to_ask.pop()
            if role in asked:
                continue
            asked.add(role)
            targets = await self._targets(trusted, role, delegator)
            if path in targets.targets:
                return targets.targets[path]
            next_roles = list(speaking_for(path, targets))
            if next_roles and next_roles[-1].terminating:
                to_ask.clear()
            to_ask += [(each.name, role) for each in reversed(next_roles)]
        return None

    def recall(self, now: datetime) -> Trusted:
        """What can be trusted without asking anybody: the newest root alone. Blocks on the disk.

        Raises:
            UpdateRefused: ROOT_MISSING, or what is wrong with the flashed root.
        """
        self._store.open()
        refusal = UpdateRefused(UpdateCode.ROOT_MISSING, "No root of trust came with this device.")
        for root in self._store.roots():
            try:
                return Trusted(root, now, self._store.former_keys())
            except UpdateRefused as error:
                log.warning("the kept root can't be used: %s", error)
                refusal = error
        raise refusal

    async def _follow_roots(self, trusted: Trusted) -> None:
        for _ in range(MAX_ROOTS):
            name = f"{trusted.root.version + 1}.root.json"
            data = await self._source.fetch(name, limits.MAX_METADATA)
            if data is None:
                return
            trusted.update_root(data)
            await to_its_end(on_disk(self._store.write_former_keys, dict(trusted.former)))
            await to_its_end(on_disk(self._store.write, "root", data))

    async def _renew_timestamp(self, trusted: Trusted) -> None:
        await self._recalled("timestamp", trusted.recall_timestamp)
        data = await self._needed("timestamp", None, MAX_TIMESTAMP)
        if trusted.update_timestamp(data):
            await to_its_end(on_disk(self._store.write, "timestamp", data))

    async def _renew_snapshot(self, trusted: Trusted) -> None:
        if await self._recalled("snapshot", trusted.recall_snapshot):
            return
        assert trusted.timestamp is not None, "just renewed"  # noqa: S101
        meta = trusted.timestamp.meta.snapshot
        version = meta.version if trusted.root.consistent_snapshot else None
        data = await self._needed("snapshot", version, meta.length)
        trusted.update_snapshot(data)
        await to_its_end(on_disk(self._store.write, "snapshot", data))

    async def _targets(self, trusted: Trusted, role: str, delegator: str) -> Targets:
        """A targets role's metadata, from memory, the disk or the source."""
        if (role, delegator) in trusted.targets:
            return trusted.targets[role, delegator]
        kept = await self._recalled(
            role, lambda data: trusted.update_targets(role, delegator, data)
        )
        if kept is not None:
            return kept
        meta = trusted.meta_of(role)
        version = meta.version if trusted.root.consistent_snapshot else None
        data = await self._needed(role, version, meta.length)
        targets = trusted.update_targets(role, delegator, data)
        await to_its_end(on_disk(self._store.write, role, data))
        return targets

    async def _recalled(self, role: str, use: Callable[[bytes], _UsedT]) -> _UsedT | None:
        """What `use` makes of the kept file; none when there's none or it holds no more."""
        data = await to_its_end(on_disk(self._store.read, role))
        if data is None:
            return None
        try:
            return use(data)
        except UpdateRefused as error:
            log.debug("the kept %s holds no more: %s", role, error)
            return None

    async def _needed(self, role: str, version: int | None, limit: int | UnsetType) -> bytes:
        name = file_name(role) if version is None else f"{version}.{file_name(role)}"
        bound = min(limit or limits.MAX_METADATA, limits.MAX_METADATA)
        data = await self._source.fetch(name, bound)
        if data is None:
            raise UpdateRefused(UpdateCode.METADATA_MISSING, f"The repository has no {name}.")
        if len(data) > bound:
            raise UpdateRefused(
                UpdateCode.METADATA_TOO_LARGE,
                f"{name} goes on after the {bound} bytes it may have.",
            )
        return data
