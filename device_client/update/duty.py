"""The connected part of an update: what is assigned, what the repository says, the download."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from msgspec import UNSET

from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic, metadata_topic
from broker.protocol.updates import Assignment
from device_client.backoff import Backoff
from device_client.disk import on_disk
from device_client.errors import ConnectionLost, DeviceError
from device_client.online import Online
from device_client.timekeeping import Timekeeper
from device_client.update.assignment import authentic, resolve
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.journal import WITHDRAWABLE, Stage
from device_client.update.pacing import Pacing
from device_client.update.reports import Reporting
from device_client.update.repository import MetadataSource, Repository
from device_client.update.store import MetadataStore
from device_client.update.trusted import Trusted
from device_client.update.updater import Fetch, Updater
from device_client.watching import Watch

log = logging.getLogger(__name__)


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
        online: asyncio.Event,
    ) -> None:
        """`again` gives the waiting times after a try in vain; `online` is set while connected."""
        self.updater = updater
        self._online = online
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
        self._online.set()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._reporting.send(online))
                await self._follow(online)
        finally:
            self._online.clear()

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
        repository = Repository(self._store, self._lines.source(online))
        return Pursuit(self.updater, repository, self._timekeeper)


class Pursuit:
    """One assignment, as far as it can be taken while connected."""

    def __init__(self, updater: Updater, repository: Repository, timekeeper: Timekeeper) -> None:
        self._updater = updater
        self._repository = repository
        self._timekeeper = timekeeper

    async def pursue(
        self, payload: bytes, device_id: DeviceId, fetch: Fetch, again: Backoff
    ) -> None:
        """Tries until the assignment is done, or not worth a try.

        Raises:
            ConnectionLost: the connection has ended.
        """
        while True:
            try:
                return await self._advance(payload, device_id, fetch)
            except ConnectionLost:
                raise
            except DeviceError as error:
                log.warning("no update yet: %s: %s", error.stable_code, error)
                if not await self._count(error):
                    return None
            await asyncio.sleep(again.next())

    async def look_again(self) -> None:
        """Holds what waits for its time, and isn't assigned any more, if its director was replaced.

        Raises:
            ConnectionLost: the connection has ended.
        """
        if self._updater.state.stage not in WITHDRAWABLE:
            return
        try:
            await self._trusted()
        except ConnectionLost:
            raise
        except DeviceError as error:
            log.warning("the repository can't be looked at: %s: %s", error.stable_code, error)

    async def _advance(self, payload: bytes, device_id: DeviceId, fetch: Fetch) -> None:
        """Raises what stands in the way."""
        trusted = await self._refreshed(payload, device_id)
        assignment = await self._accepted(payload, device_id, trusted)
        if assignment is None:
            return
        while (work := self._updater.state.work) and work.sequence == assignment.sequence:
            if work.stage in (Stage.CHECKING, Stage.DOWNLOADING):
                await self._updater.choose(await resolve(assignment, self._repository, trusted))
                if self._updater.state.stage is Stage.DOWNLOADING:
                    await self._updater.download(fetch)
                continue
            if work.stage is Stage.READY:
                await resolve(assignment, self._repository, trusted)
            state = self._updater.state
            if state.work is work:
                await self._updater.until_changed(state)

    async def _refreshed(self, payload: bytes, device_id: DeviceId) -> Trusted:
        """The repository's newest state. When it can't be had, the assignment is taken up all the
        same if what was trusted before vouches for it: so that its failure can be reported."""
        try:
            return await self._trusted()
        except UpdateRefused as error:
            with suppress(UpdateRefused):
                kept = await on_disk(self._repository.recall, self._now())
                await self._accepted(payload, device_id, kept)
            raise error from None

    async def _trusted(self) -> Trusted:
        """The repository's newest state, and the director that its root names."""
        try:
            trusted = await self._repository.refresh(self._now())
        except UpdateRefused:
            kept = await on_disk(self._repository.recall, self._now())
            if not await self._follow_director(kept):
                raise
            trusted = await self._repository.refresh(self._now())
        await self._follow_director(trusted)
        return trusted

    async def _follow_director(self, trusted: Trusted) -> bool:
        role = trusted.root.director
        if role is UNSET:
            return False
        return await self._updater.follow_directors(frozenset(role.keyids), role.threshold)

    def _now(self) -> datetime:
        """The clock's word or the director's, whichever is later."""
        now, learned = self._timekeeper.now(), self._updater.state.learned
        return now if learned is None else max(now, learned)

    async def _accepted(
        self, payload: bytes, device_id: DeviceId, trusted: Trusted
    ) -> Assignment | None:
        """The assignment, taken up; none if it isn't the director's word to us. That is noted and
        not reported, as anybody may have said it."""
        try:
            assignment = authentic(payload, trusted, device_id, self._now())
            await self._learn_time(assignment, trusted)
            await self._updater.consider(assignment)
        except UpdateRefused as error:
            log.warning("an assignment isn't heeded: %s: %s", error.stable_code, error)
            await self._updater.note(error)
            return None
        return assignment

    async def _learn_time(self, assignment: Assignment, trusted: Trusted) -> None:
        """The director's word on the time counts for updates only, not beyond the newest
        timestamp's end, and for as long as the keys are the director's: who steals them, and the
        timestamp's, can't set a device to where no certificate and no metadata is valid."""
        if trusted.timestamp is not None:
            await self._updater.learn(min(assignment.issued_at, trusted.timestamp.expiry))

    async def _count(self, error: DeviceError) -> bool:
        """Counts the failure against the work; whether another try is worth it."""
        try:
            if error.stable_code == UpdateCode.IMAGE_BUDGET_SPENT:
                await self._updater.note(error)
                return True
            if self._updater.state.stage in WITHDRAWABLE:
                await self._updater.fail(error)
                return self._updater.state.work is not None
            if isinstance(error, UpdateRefused):
                await self._updater.note(error)
        except UpdateRefused as storage:
            log.warning("%s", storage)
        return True


async def _interrupted(work: Coroutine[Any, Any, None], by: Coroutine[Any, Any, None]) -> bool:
    """Does the work until it's done or the other is; whether the other was."""
    async with asyncio.TaskGroup() as tasks:
        working, other = tasks.create_task(work), tasks.create_task(by)
        await asyncio.wait((working, other), return_when=asyncio.FIRST_COMPLETED)
        is_interrupted = other.done() and not other.cancelled()
        working.cancel()
        other.cancel()
    return is_interrupted
