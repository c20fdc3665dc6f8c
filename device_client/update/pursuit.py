"""One assignment: what is assigned, what the repository says of it, the download."""

import asyncio
import logging
from contextlib import suppress
from datetime import datetime

from msgspec import UNSET

from broker.protocol.names import DeviceId
from broker.protocol.updates import Assignment
from device_client.backoff import Backoff
from device_client.disk import on_disk
from device_client.errors import ConnectionLost, DeviceError
from device_client.timekeeping import Timekeeper
from device_client.update.assignment import authentic, resolve
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.journal import WITHDRAWABLE, Stage
from device_client.update.repository import Repository
from device_client.update.trusted import Trusted
from device_client.update.updater import Fetch, Updater

log = logging.getLogger(__name__)


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
