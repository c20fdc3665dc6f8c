"""The connected part of an update: follows what is assigned and what the repository says."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.protocol.topics import Desired, desired_topic, metadata_topic
from device_client.backoff import Backoff
from device_client.online import Online
from device_client.timekeeping import Timekeeper
from device_client.update.health import Line
from device_client.update.pacing import Pacing
from device_client.update.reports import Reporting
from device_client.update.sources import MetadataSource
from device_client.update.store import MetadataStore
from device_client.update.updater import Fetch, Updater
from device_client.watching import Watch

if TYPE_CHECKING:
    from device_client.update.pursuit import Pursuit


@dataclass(frozen=True, kw_only=True)
class Lines:
    """What reaches outside, made anew for each connection."""

    source: Callable[[Online], MetadataSource]
    fetch: Callable[[Online], Fetch]


class UpdateDuty:
    """Follows the newest assignment as long as the device is connected."""

    def __init__(
        self,
        updater: Updater,
        store: MetadataStore,
        timekeeper: Timekeeper,
        lines: Lines,
        reporting: Reporting,
        again: Backoff,
        line: Line,
    ) -> None:
        """`again` gives the waiting times after a try in vain; `line` is up while connected."""
        self.updater = updater
        self._line = line
        self._store = store
        self._timekeeper = timekeeper
        self._lines = lines
        self._reporting = reporting
        self._again = again
        self._pacing = Pacing()

    async def perform(self, online: Online) -> None:
        """As `Duty` says.

        Raises:
            ConnectionLost: the connection has ended.
        """
        with self._line.up(online.connection):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._reporting.send(online))
                await self._follow(online)

    async def _follow(self, online: Online) -> None:
        """Begins anew whenever the assignment or the repository's state is another."""
        desired = desired_topic(online.identity.device_id, Desired.UPDATE)
        news = metadata_topic("timestamp.json")
        known: dict[str, bytes] = {}
        async with online.connection.watch(desired, news) as watch:
            while True:
                await self._news(watch, known)
                while await _interrupted(
                    self._heed(online, dict(known), desired), self._news(watch, known)
                ):
                    pass

    async def _heed(self, online: Online, known: dict[str, bytes], desired: str) -> None:
        await self._pacing.turn(known)
        pursuit = self._pursuit(online)
        if not (payload := known.get(desired)):
            await pursuit.look_again()
            return
        self._again.reset()
        await pursuit.pursue(
            payload, online.identity.device_id, self._lines.fetch(online), self._again
        )

    async def _news(self, watch: Watch, known: dict[str, bytes]) -> None:
        """Returns when a topic has another content; what is retained comes again and again."""
        while True:
            message = await watch.next()
            if known.get(message.topic) != message.payload:
                known[message.topic] = message.payload
                return

    def _pursuit(self, online: Online) -> "Pursuit":
        # Not before there is something to pursue: a device at rest has little memory.
        from device_client.update.pursuit import Pursuit
        from device_client.update.repository import Repository

        repository = Repository(self._store, self._lines.source(online))
        return Pursuit(self.updater, repository, self._timekeeper)


async def _interrupted(work: Coroutine[Any, Any, None], by: Coroutine[Any, Any, None]) -> bool:
    """Does the work until it's done or the other is; whether the other was."""
    async with asyncio.TaskGroup() as tasks:
        working, other = tasks.create_task(work), tasks.create_task(by)
        await asyncio.wait((working, other), return_when=asyncio.FIRST_COMPLETED)
        is_interrupted = other.done() and not other.cancelled()
        working.cancel()
        other.cancel()
    return is_interrupted
