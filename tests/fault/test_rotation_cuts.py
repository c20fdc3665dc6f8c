"""The network between device and broker breaks in the midst of a renewal or a recovery."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.protocol.zones import Zone
from broker.services import superseded
from broker.settings import BrokerKind
from tests.support.acting import is_admitted
from tests.support.rotating import (
    EXPIRING,
    IMPATIENT,
    assert_ended,
    assert_settled,
    kept_client,
    key_of,
    member,
    recovered,
    renewed,
)
from tests.support.stack import Plan, Stack, running_stack
from tests.support.tcp_proxy import Direction, Fault, TcpProxy, Way, tcp_proxy

pytestmark = pytest.mark.asyncio(loop_scope="module")

POSITIONS: Final = (30, 60, 80, 95)
"""Per cent of the bytes of the longest connection, in one direction."""
GRACE: Final = timedelta(seconds=2)
WAYS: Final = (Way.RESET, Way.CLOSE, Way.STALL)


@dataclass(frozen=True)
class Wire:
    """A running installation with a proxy in front of each broker."""

    stack: Stack
    proxies: dict[Zone, TcpProxy]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """One for all cuts; an old certificate ends soon after its grace."""
    async with AsyncExitStack() as ending:
        patch = ending.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(superseded, "_REST_S", 1.0)
        proxies = {zone: await ending.enter_async_context(tcp_proxy()) for zone in Zone}
        plan = Plan(
            BrokerKind.MOSQUITTO,
            limits={"client_claims_burst": 1000},
            told_ports={zone: proxy.port for zone, proxy in proxies.items()},
        )
        place = tmp_path_factory.mktemp("stack")
        stack = await ending.enter_async_context(running_stack(place, plan))
        for zone, proxy in proxies.items():
            proxy.target = stack.ports[zone]
        await stack.installation.standard([])
        yield Wire(stack, proxies)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("direction", Direction)
async def test_a_renewal_is_cut(
    wire: Wire, direction: Direction, position: int, way: Way, tmp_path: Path
) -> None:
    await survive_while_renewing(wire, direction, position, way, 1, tmp_path)


@pytest.mark.parametrize("way", WAYS)
async def test_a_renewal_is_cut_again_and_again(wire: Wire, way: Way, tmp_path: Path) -> None:
    """Where it was sent, and each time without its answer."""
    await survive_while_renewing(wire, Direction.DOWN, 80, way, 3, tmp_path)


async def survive_while_renewing(
    wire: Wire, direction: Direction, position: int, way: Way, times: int, tmp_path: Path
) -> None:
    stack, proxy, state = wire.stack, wire.proxies[Zone.FLEET], tmp_path / "state"
    serial = await member(stack, state, grace=GRACE)
    proxy.longest.clear()
    await renewed(stack, serial, state)
    whole = proxy.longest[direction]
    old_key, old = key_of(state), kept_client(stack, state, tmp_path / "old")
    proxy.break_next(Fault(direction, whole * position // 100, way), times)
    await renewed(stack, serial, state, IMPATIENT)
    assert proxy.broken >= 1
    proxy.break_next(Fault(direction, 0, way), 0)
    assert key_of(state) != old_key
    await assert_settled(stack, serial, state)
    await assert_ended(stack, old, old_key)


@pytest.mark.parametrize("zone", Zone)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("direction", Direction)
async def test_a_recovery_is_cut(
    wire: Wire, zone: Zone, direction: Direction, position: int, way: Way, tmp_path: Path
) -> None:
    stack, proxy, state = wire.stack, wire.proxies[zone], tmp_path / "state"
    before = proxy.passed[direction]
    serial = await member(stack, state, EXPIRING)
    whole = proxy.passed[direction] - before
    old_key, old = key_of(state), kept_client(stack, state, tmp_path / "old")
    proxy.break_next(Fault(direction, whole * position // 100, way))
    await recovered(stack, serial, state, IMPATIENT)
    assert proxy.broken == 1
    proxy.break_next(Fault(direction, 0, way), 0)
    assert key_of(state) != old_key
    await assert_settled(stack, serial, state)
    assert not await is_admitted(stack, old)
