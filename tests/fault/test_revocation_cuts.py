"""The network between a device and the broker breaks while the device is put out.

A proxy stands between the two and breaks the live connection at a byte of what is said during the
act: in the device's messages, in the broker's answers, or in its last words. In the end the device
is out, on the broker's side too, and nobody else is.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiomqtt
import psutil
import pytest
import pytest_asyncio

from broker.core.lifecycle import DeviceInput
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import act, is_admitted, is_complete, joined
from tests.support.knocking import Answer, knock
from tests.support.peers import Peer, peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.tcp_proxy import Direction, Fault, TcpProxy, Way, tcp_proxy
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

PLANS: Final = (
    Plan(BrokerKind.EMBEDDED, limits={"client_claims_burst": 1000}),
    Plan(BrokerKind.MOSQUITTO, supervised=True, limits={"client_claims_burst": 1000}),
)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Wire:
    """A running installation with a proxy in front of the fleet's broker."""

    stack: Stack
    proxy: TcpProxy
    place: Path


@pytest_asyncio.fixture(
    params=PLANS, ids=["embedded", "mosquitto"], scope="module", loop_scope="module"
)
async def wire(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Wire]:
    """One for all cuts."""
    place = tmp_path_factory.mktemp("stack")
    async with AsyncExitStack() as ending:
        proxy = await ending.enter_async_context(tcp_proxy())
        stack = await ending.enter_async_context(running_stack(place, request.param))
        proxy.target = stack.ports[Zone.FLEET]
        await stack.installation.standard([])
        yield Wire(stack, proxy, place)


@pytest.mark.parametrize("way", Way)
@pytest.mark.parametrize("after", [1, 30, 200])
@pytest.mark.parametrize("direction", Direction)
async def test_a_cut_while_it_is_put_out(
    wire: Wire, direction: Direction, after: int, way: Way
) -> None:
    number = next(_numbers)
    lamp, other = await joined(wire.stack, wire.place, f"out-{number}", f"in-{number}")
    port, topic = wire.stack.ports[Zone.FLEET], f"muster/v1/device/{other.name}/desired/#"
    wire.proxy.longest.clear()
    async with peer(port, other) as neighbour, peer(wire.proxy.port, lamp, within=5) as device:
        await device.hear(f"muster/v1/device/{lamp.name}/desired/#")
        connections = established(port)
        wire.proxy.break_next(Fault(direction, wire.proxy.longest[direction] + after, way))
        talking = asyncio.create_task(keep_talking(device, lamp.name))
        try:
            await eventually(lambda: wire.proxy.broken == 1 or talking.done())
            await act(wire.stack, DeviceInput.REVOKE, lamp.name)
            await eventually(lambda: established(port) == connections - 1)
        finally:
            talking.cancel()
            await asyncio.gather(talking, return_exceptions=True)
        await neighbour.hear(topic)
    assert wire.proxy.broken == 1
    assert await is_complete(wire.stack, lamp.name)
    assert not await is_admitted(wire.stack, lamp)
    assert await knock(wire.proxy.port, lamp) is Answer.REFUSED
    assert await is_admitted(wire.stack, other)


async def keep_talking(device: Peer, name: str) -> None:
    """What is answered by PUBACK, and by the service; until the connection breaks."""
    with suppress(aiomqtt.MqttError):
        while True:
            await device.say(f"muster/v1/device/{name}/confirm", b"{}")


def established(port: int) -> int:
    """How many connections this process has to the broker that the broker hasn't ended."""
    found = psutil.Process().net_connections("tcp")
    return sum(
        bool(each.raddr) and each.raddr.port == port and each.status == psutil.CONN_ESTABLISHED
        for each in found
    )
