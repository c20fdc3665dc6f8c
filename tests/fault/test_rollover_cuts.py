"""The network between device and broker breaks while the operational authority is replaced.

The device ends as a member by the new authority. All the time it holds a certificate that counts,
and never two of which one isn't in its grace.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.composition.registries import open_registry
from broker.core.ca_rollover import Phase
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from device_client import keystore
from device_client.errors import StateUnusable
from tests.support.acting import act, as_client, is_admitted
from tests.support.device_agents import device
from tests.support.rolling import issuer_of, moved, operate, reached, start
from tests.support.rotating import IMPATIENT, assert_settled, kept_client, key_of, member
from tests.support.stack import Plan, Stack, running_stack
from tests.support.tcp_proxy import Direction, Fault, TcpProxy, Way, tcp_proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

POSITIONS: Final = (30, 60, 80, 95)
"""Per cent of the bytes of the connection on which a device is told to move, and renews."""
WAYS: Final = (Way.RESET, Way.STALL)
ALERT: Final = replace(IMPATIENT, keepalive_s=3)
"""Finds out soon that nothing comes through."""
_PAUSE_S: Final = 0.05


@dataclass(frozen=True)
class Wire:
    """A running installation with a proxy before the fleet's broker."""

    stack: Stack
    proxy: TcpProxy
    whole: dict[Direction, int]
    """How many bytes the longest connection of an undisturbed move takes."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def wire(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Wire]:
    """One for all cuts: each goes from one authority to the next."""
    async with AsyncExitStack() as ending:
        proxy = await ending.enter_async_context(tcp_proxy())
        place = tmp_path_factory.mktemp("stack")
        limits: dict[str, str | float] = {"client_claims_burst": 1000}
        plan = Plan(BrokerKind.MOSQUITTO, limits=limits, told_ports={Zone.FLEET: proxy.port})
        stack = await ending.enter_async_context(running_stack(place, plan))
        proxy.target = stack.ports[Zone.FLEET]
        await stack.installation.standard([])
        whole: dict[Direction, int] = {}
        wire = Wire(stack, proxy, whole)
        await moves(wire, place / "whole", None)
        whole.update(proxy.longest)
        yield wire


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("direction", Direction)
async def test_a_move_is_cut(
    wire: Wire, direction: Direction, position: int, way: Way, tmp_path: Path
) -> None:
    await moves(wire, tmp_path, Fault(direction, wire.whole[direction] * position // 100, way))


async def test_a_move_is_cut_again_and_again(wire: Wire, tmp_path: Path) -> None:
    """Where it was asked for, and each time without its answer."""
    after = wire.whole[Direction.DOWN] * 80 // 100
    await moves(wire, tmp_path, Fault(Direction.DOWN, after, Way.RESET), times=3)


async def moves(wire: Wire, place: Path, fault: Fault | None, times: int = 1) -> None:
    """A rollover from start to end, with one device that meets the fault on its way."""
    stack, proxy, state = wire.stack, wire.proxy, place / "state"
    serial = await member(stack, state)
    old_key, old = key_of(state), kept_client(stack, state, place / "old")
    await start(stack)
    await reached(stack, Phase.MOVING)
    await eventually(lambda: is_ordered(stack, serial))
    proxy.longest.clear()
    if fault is not None:
        proxy.break_next(fault, times)
    async with living(stack, state, serial), watched(stack, state, serial):
        await moved(stack)
        await eventually(lambda: key_of(state) != old_key)
    assert proxy.broken == (times if fault else 0)
    proxy.break_next(Fault(Direction.UP, 0, Way.RESET), 0)
    await assert_settled(stack, serial, state)
    assert await is_admitted(stack, old), "it has its grace"
    await assert_finished(stack, state)
    assert not await is_admitted(stack, old)
    await act(stack, DeviceInput.RETIRE, (await stack.device(serial)).id, within_s=0)


async def is_ordered(stack: Stack, serial: str) -> bool:
    """So that it meets its order on its first connection."""
    (certificate,) = await stack.certificates_of(serial)
    name = certificate.device_id
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return name in await registry.read(lambda tx: tx.last_orders([name]))


async def assert_finished(stack: Stack, state: Path) -> None:
    """The rollover ends without anybody who is left, and the device is let in by the new one."""
    standing = await operate(stack, lambda rollovers: rollovers.finish(0))
    assert standing.rollover is not None
    await reached(stack, Phase.DONE)
    identity = keystore.looked_at(state).current()
    assert identity is not None
    client = as_client(stack, identity)
    assert client.leaf.issuer == issuer_of(stack, standing.rollover.new)
    assert await is_admitted(stack, client)


@asynccontextmanager
async def living(stack: Stack, state: Path, serial: str) -> AsyncIterator[None]:
    """The device's agent runs until the end of the block."""
    with device(state, stack.bundle(), serial, timing=ALERT) as (agent, _):
        running = asyncio.create_task(agent.run())
        try:
            yield
        finally:
            running.cancel()
            await asyncio.wait([running])


@asynccontextmanager
async def watched(stack: Stack, state: Path, serial: str) -> AsyncIterator[None]:
    """Looks again and again at what the device holds and what counts, until the block ends."""
    seen: list[CertificateState] = []
    watching = asyncio.create_task(_watch(stack, state, serial, seen))
    try:
        yield
        assert not watching.done(), watching.exception()
        assert seen
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def _watch(stack: Stack, state: Path, serial: str, seen: list[CertificateState]) -> None:
    while True:
        # The device first: what it holds then is live, or has been for a moment only.
        held = await asyncio.to_thread(_held, state)
        found = await stack.certificates_of(serial)
        now = datetime.now(UTC)
        live = [each for each in found if each.is_live(now)]
        if held:
            assert any(each.certificate_sha256 in held for each in live), live
        proven = [each for each in live if each.state is CertificateState.ACTIVE]
        assert len(proven) == 1, live
        old = [each for each in live if each.state is CertificateState.SUPERSEDED]
        assert all(each.grace_until is not None for each in old)
        assert (await stack.device(serial)).state in (DeviceState.ACTIVE, DeviceState.ROTATING)
        seen += [each.state for each in live]
        await asyncio.sleep(_PAUSE_S)


def _held(state: Path) -> set[str]:
    """Fingerprints of what the device could connect with; none while it changes them just now."""
    store = keystore.looked_at(state)
    try:
        identities = (store.current(), store.succession.successor())
    except (OSError, StateUnusable):
        return set()
    return {each.certificate_sha256 for each in identities if each is not None}
