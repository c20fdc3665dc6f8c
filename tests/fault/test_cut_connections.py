"""TCP connections between devices and brokers that break in the midst of things.

A proxy stands between the two; what it breaks is found again, with the same identity.
"""

import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.fleets import Fleet
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.tcp_proxy import Direction, Fault, TcpProxy, Way, tcp_proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

POSITIONS: Final = (0, 20, 40, 60, 80, 95)
"""Per cent of the bytes that a claim, or a confirmation, sends in one direction."""
QUICK_WAYS: Final = (Way.RESET, Way.CLOSE, Way.HALF)
IMPATIENT: Final = replace(STUBBORN, connect_s=2.0, answers_s=(0.5, 1.0))
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Wire:
    """A running installation with a proxy in front of each broker."""

    stack: Stack
    proxies: dict[Zone, TcpProxy]
    whole: dict[tuple[Zone, Direction], int]
    """How many bytes an undisturbed claim takes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """One for all cuts."""
    place = tmp_path_factory.mktemp("stack")
    async with AsyncExitStack() as ending:
        proxies = {zone: await ending.enter_async_context(tcp_proxy()) for zone in Zone}
        plan = Plan(
            BrokerKind.MOSQUITTO,
            limits={"client_claims_burst": 1000},
            told_ports={zone: proxy.port for zone, proxy in proxies.items()},
        )
        stack = await ending.enter_async_context(running_stack(place, plan))
        for zone, proxy in proxies.items():
            proxy.target = stack.ports[zone]
        await stack.installation.standard(["whole"])
        await stack.claim_device("whole", place / "whole")
        whole = {(z, d): proxies[z].passed[d] for z in Zone for d in Direction}
        yield Wire(stack, proxies, whole)


@pytest.mark.parametrize("way", QUICK_WAYS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("zone", Zone)
async def test_cut(
    wire: Wire, zone: Zone, direction: Direction, position: int, way: Way, tmp_path: Path
) -> None:
    await survive(wire, zone, Fault(direction, at(wire, zone, direction, position), way), tmp_path)


@pytest.mark.parametrize("position", [0, 50, 90])
@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize("zone", Zone)
async def test_silence(
    wire: Wire, zone: Zone, direction: Direction, position: int, tmp_path: Path
) -> None:
    """A network that swallows everything is noticed by waiting only."""
    fault = Fault(direction, at(wire, zone, direction, position), Way.STALL)
    await survive(wire, zone, fault, tmp_path)


async def test_a_network_that_breaks_again_and_again(wire: Wire, tmp_path: Path) -> None:
    for zone in Zone:
        fault = Fault(Direction.UP, at(wire, zone, Direction.UP, 70), Way.RESET)
        wire.proxies[zone].break_next(fault, times=5)
    fleet = Fleet(wire.stack, tmp_path, [f"again-{number}" for number in range(5)])
    await fleet.register()
    await fleet.claim()
    assert [proxy.broken for proxy in wire.proxies.values()] == [5, 5]
    await fleet.assert_whole()


def at(wire: Wire, zone: Zone, direction: Direction, position: int) -> int:
    return wire.whole[zone, direction] * position // 100


async def survive(wire: Wire, zone: Zone, fault: Fault, place: Path) -> None:
    """One device meets the fault once, and becomes a member all the same."""
    serial = f"cut-{next(_numbers)}"
    fleet = Fleet(wire.stack, place, [serial])
    await fleet.register()
    wire.proxies[zone].break_next(fault)
    await wire.stack.claim_device(serial, place / serial, IMPATIENT)
    assert wire.proxies[zone].broken == 1
    await fleet.assert_whole()
