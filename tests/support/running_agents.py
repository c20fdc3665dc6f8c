"""An agent at work in the test's own process, and what a test wants to know of it."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from device_client import keystore, status
from device_client.identity import Identity
from device_client.online import Online
from device_client.settings import Timing
from device_client.status_note import Activity
from tests.support.device_agents import QUICK, device, utc_now
from tests.support.fake_service import FakeFleet
from tests.support.waiting import eventually

Clock = Callable[[], datetime]

# After a restart of its broker, the service misses what is asked before it's back.
REPEATING = dataclasses.replace(QUICK, answers_s=(1.0,) * 30)


class Running:
    """One agent."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.store = keystore.looked_at(state)
        self.seen: list[Identity] = []
        """The identities that were online, one after the other."""

    async def perform(self, online: Online) -> None:
        """A duty: takes note."""
        self.seen.append(online.identity)

    def identity(self) -> Identity:
        """The one in use."""
        found = self.store.current()
        assert found is not None
        return found

    def error(self) -> str | None:
        """The code of what stands in its way."""
        found = status.report(self.state).last_error
        return found.code if found else None

    def renewal_due(self) -> datetime:
        """When it means to renew."""
        due = status.report(self.state).renewal_due
        assert due is not None
        return due

    async def is_online(self) -> None:
        """Returns when it is."""

        def is_it() -> bool:
            return bool(self.seen) and status.report(self.state).activity is Activity.ONLINE

        await eventually(is_it)

    async def proves(self, wanted: Callable[[Identity], bool]) -> None:
        """Returns when an identity like that is confirmed and in use."""

        def has() -> bool:
            identity = self.store.current()
            return identity is not None and identity.confirmed_at is not None and wanted(identity)

        await eventually(has)


@asynccontextmanager
async def running(
    state: Path, fleet: FakeFleet, timing: Timing = REPEATING, clock: Clock = utc_now
) -> AsyncIterator[Running]:
    """An agent that runs until the end of the block."""
    one = Running(state)
    with device(state, fleet.bundle(), timing=timing, clock=clock, duties=[one]) as (agent, _):
        task = asyncio.create_task(agent.run())
        try:
            yield one
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled(), task
