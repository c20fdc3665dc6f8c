"""Kill -9 of a broker at every step of the protocol: devices and service find it again."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from broker.entry.mqtt.link import BrokerLink
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from device_client.status import report
from device_client.status_note import Activity
from device_client.transport import Connection
from device_client.watching import Watch
from tests.support.device_agents import device
from tests.support.fleets import Fleet
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

STEPS: Final = (
    "connected",
    "subscribed",
    "request-sent",
    "answer-decided",
    "answer-sent",
    "answer-read",
)
_numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stack]:
    """One installation for all steps."""
    plan = Plan(BrokerKind.MOSQUITTO, limits={"client_claims_burst": 1000})
    async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
        await running.installation.standard([])
        yield running


class Killer:
    """Kills a zone's broker the first time that its step is reached, and starts it again."""

    def __init__(self, stack: Stack, zone: Zone, step: str) -> None:
        self.has_killed = False
        self._broker = stack.brokers[zone]
        self._when = (zone, step)

    async def at(self, zone: Zone, step: str) -> None:
        if (zone, step) == self._when and not self.has_killed:
            self.has_killed = True
            await self._broker.restart()

    def watch(self, patch: pytest.MonkeyPatch) -> None:
        """Wraps what a device and the service do at each step."""
        device_zone = lambda connection: connection._address.zone  # noqa: E731
        link_zone = lambda link: link._settings.zone  # noqa: E731
        self._wrap(patch, Connection, "subscribe", device_zone, ("connected", "subscribed"))
        self._wrap(patch, Connection, "publish", device_zone, ("", "request-sent"))
        self._wrap(patch, Watch, "next", watched_zone, ("", "answer-read"))
        self._wrap(patch, BrokerLink, "publish", link_zone, ("answer-decided", "answer-sent"))

    def _wrap(
        self,
        patch: pytest.MonkeyPatch,
        owner: type,
        method: str,
        zone_of: Callable[[Any], Zone],
        steps: tuple[str, str],
    ) -> None:
        real: Callable[..., Awaitable[Any]] = getattr(owner, method)

        async def wrapped(this: Any, *args: Any, **options: Any) -> Any:
            await self.at(zone_of(this), steps[0])
            result = await real(this, *args, **options)
            await self.at(zone_of(this), steps[1])
            return result

        patch.setattr(owner, method, wrapped)


def watched_zone(watch: Any) -> Zone:
    """Where a device listens, by its topics: muster/v1/claim/… or muster/v1/device/…."""
    return Zone.CLAIM if watch._filters[0][2] == "claim" else Zone.FLEET


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("zone", Zone)
async def test_kill_at(
    stack: Stack, zone: Zone, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(stack, tmp_path, [f"{zone}-{step}-{next(_numbers)}" for _ in range(3)])
    await fleet.register()
    killer = Killer(stack, zone, step)
    killer.watch(monkeypatch)
    await fleet.claim()
    assert killer.has_killed
    await fleet.assert_whole()


async def test_members_come_back(stack: Stack, tmp_path: Path) -> None:
    """A device that is connected notices that its broker has died, and connects again."""
    await stack.installation.enroll(["member"])
    state = tmp_path / "member"
    with device(state, stack.bundle(), "member", timing=STUBBORN) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            await eventually(lambda: is_online(state))
            for _ in range(2):
                await stack.brokers[Zone.FLEET].kill()
                await eventually(lambda: not is_online(state))
                await stack.brokers[Zone.FLEET].restart()
                await eventually(lambda: is_online(state))
        finally:
            running.cancel()
            await asyncio.wait({running})
    assert await stack.is_active("member")


async def test_both_brokers_at_once(stack: Stack, tmp_path: Path) -> None:
    fleet = Fleet(stack, tmp_path, [f"both-{number}" for number in range(5)])
    await fleet.register()
    for zone in Zone:
        await stack.brokers[zone].kill()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fleet.claim())
        for zone in Zone:
            await stack.brokers[zone].restart()
    await fleet.assert_whole()


def is_online(state: Path) -> bool:
    return report(state).activity is Activity.ONLINE
