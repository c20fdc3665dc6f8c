"""Images on their way to devices: over HTTP from the service, and in blocks over every broker."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.composition.registries import open_registry
from broker.core.rollout import Selection
from broker.core.rollout_pace import StopRule
from broker.operating.updating import update_repository
from broker.protocol.limits import MAX_BLOCK
from broker.protocol.messages import Endpoint
from broker.protocol.names import DeviceId
from broker.protocol.topics import DeviceOrigin, Operation, device_topic
from broker.protocol.updates import AssignedTarget, BlockAccepted, BlockRequest
from broker.protocol.zones import Zone
from broker.services import rollouts
from broker.services.rollouts import Push
from broker.settings import BrokerKind
from device_client import exchange
from device_client.errors import ConnectionLost
from device_client.exchange import Question
from device_client.fetch.errors import ImageTooSlow, SourceUnfit
from device_client.fetch.plan import fetch
from device_client.transport import Address, Connection, connected
from tests.support.acting import joined
from tests.support.certificates import Client
from tests.support.http import ask
from tests.support.ports import free_port
from tests.support.sinks import QUICK, MemorySink, quick
from tests.support.stack import Plan, Stack, running_stack
from tests.support.tcp_proxy import Direction, Fault, TcpProxy, Way, tcp_proxy
from tests.support.update_devices import update_device, workshop_of
from tests.support.update_workshop import SetClock, Workshop, tuf_client

IMAGE = bytes(range(251)) * 2000


@dataclass
class Site:
    """An installation that has assigned an image to its lamps."""

    stack: Stack
    workshop: Workshop
    path: str
    lamps: list[Client]
    target: AssignedTarget

    @property
    def http_port(self) -> int:
        port = self.stack.plan.http_port
        assert port is not None
        return port

    @property
    def http_path(self) -> str:
        folder, name = self.path.rsplit("/", 1)
        return f"/updates/targets/{folder}/{self.target.sha256}.{name}"


@pytest.fixture
def plan(brokers: BrokerKind) -> Plan:
    fast = {"blocks_per_second": 1000.0, "blocks_burst": 1000}
    return Plan(brokers, http_port=free_port(), limits={**fast})


@pytest.fixture
async def site(plan: Plan, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_stack(tmp_path, plan) as stack:
        await stack.installation.standard([])
        workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
        path = await asyncio.to_thread(lambda: workshop.publish_image(content=IMAGE))
        lamps = await joined(stack, tmp_path, "A1", "B2")
        await push(stack, workshop, path)
        async with update_device(stack, lamps[0]) as device:
            assignment = await device.told()
        assert assignment is not None
        (target,) = assignment.targets
        assert target.sha256 == hashlib.sha256(IMAGE).hexdigest()
        yield Site(stack, workshop, path, lamps, target)


async def push(stack: Stack, workshop: Workshop, path: str) -> None:
    """To the lamp A1 alone."""
    published = update_repository(workshop.home, None).targets()
    selection = Selection(devices=(DeviceId("lamp-A1"),))
    plan = rollouts.planned(
        Push("r1", (path,), selection, stop=StopRule(above=1.0)), published, SetClock().now()
    )
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await rollouts.start(registry, SetClock(), plan)


class Asker:
    """Asks over a connection, and remembers for what."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.offsets: list[int] = []
        self._connection = connection
        self._topic = device_topic(DeviceOrigin(DeviceId(name)), Operation.BLOCK)

    async def __call__(self, request: BlockRequest) -> BlockAccepted:
        self.offsets.append(request.offset)
        question = Question(self._topic, request.request_id, request, BlockAccepted)
        return await exchange.ask(self._connection, question, (10.0,))


@asynccontextmanager
async def blocks(client: Client, port: int) -> AsyncIterator[Asker]:
    """The device's connection to the fleet broker, to ask for blocks on."""
    address = Address(
        zone=Zone.FLEET,
        endpoint=Endpoint(host="localhost", port=port),
        client_id=client.name,
        context=await asyncio.to_thread(client.context),
        timeout_s=10.0,
        keepalive_s=30,
    )
    async with connected(address) as connection:
        yield Asker(connection, client.name)


async def test_blocks_make_up_the_image_and_go_on_after_a_cut(site: Site) -> None:
    lamp, sink = site.lamps[0], MemorySink()
    async with tcp_proxy() as proxy:
        proxy.target = site.stack.ports[Zone.FLEET]
        proxy.break_next(Fault(Direction.DOWN, 300_000, Way.RESET))
        with pytest.raises(ConnectionLost):
            async with blocks(lamp, proxy.port) as asker:
                await fetch(without_sources(site.target), sink, asker, QUICK, "")
        reached = sink.position
        assert 0 < reached < len(IMAGE)
        assert reached % MAX_BLOCK == 0
        async with blocks(lamp, proxy.port) as asker:
            await fetch(without_sources(site.target), sink, asker, QUICK, "")
            assert asker.offsets == list(range(reached, len(IMAGE), MAX_BLOCK))
    assert bytes(sink.data) == IMAGE
    assert sink.restarts == 0
    assert await site.stack.installation.replies() == []


async def test_a_neighbour_gets_no_block_of_it(site: Site) -> None:
    sink = MemorySink()
    async with blocks(site.lamps[1], site.stack.ports[Zone.FLEET]) as asker:
        with pytest.raises(SourceUnfit, match="isn't assigned"):
            await fetch(without_sources(site.target), sink, asker, QUICK, "")
    assert sink.position == 0


async def test_a_device_that_asks_too_often_slows_down_and_gets_it(
    brokers: BrokerKind, tmp_path: Path
) -> None:
    limits = {"blocks_per_second": 5.0, "blocks_burst": 2}
    content = IMAGE[: 5 * MAX_BLOCK]
    async with running_stack(tmp_path, Plan(brokers, limits={**limits})) as stack:
        await stack.installation.standard([])
        workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
        path = await asyncio.to_thread(lambda: workshop.publish_image(content=content))
        (lamp,) = await joined(stack, tmp_path, "A1")
        await push(stack, workshop, path)
        async with update_device(stack, lamp) as device:
            assignment = await device.told()
        assert assignment is not None
        sink = MemorySink()
        async with blocks(lamp, stack.ports[Zone.FLEET]) as asker:
            await fetch(without_sources(assignment.targets[0]), sink, asker, QUICK, "")
            assert len(asker.offsets) > 5
            hasty = quick(slow_window_s=0.2, least_rate=8.0 * MAX_BLOCK, fruitless=1)
            with pytest.raises(ImageTooSlow):
                await fetch(without_sources(assignment.targets[0]), MemorySink(), asker, hasty, "")
    assert bytes(sink.data) == content


async def test_http_goes_on_after_a_cut(site: Site) -> None:
    sink = MemorySink()
    async with tcp_proxy() as proxy:
        proxy.target = site.http_port
        # An orderly end: what a reset overtakes on a busy machine is lost, and sent again.
        proxy.break_next(Fault(Direction.DOWN, 200_000, Way.CLOSE))
        target = with_source(site.target, proxy, site.http_path)
        await fetch(target, sink, None, QUICK, "")
        # Not a byte of the image twice, and little besides: two heads.
        assert proxy.passed[Direction.DOWN] < len(IMAGE) + 70_000
    assert bytes(sink.data) == IMAGE
    assert sink.restarts == 0


async def test_a_client_that_nobody_of_us_wrote_gets_it(site: Site, tmp_path: Path) -> None:
    base = f"http://127.0.0.1:{site.http_port}/updates"
    state = tmp_path / "tuf"
    found = await asyncio.to_thread(_downloaded, state, base, site.workshop.first_root(), site.path)
    assert found == IMAGE
    answer = await ask(site.http_port, site.http_path)
    assert answer.headers["etag"] == f'"{site.target.sha256}"'


def _downloaded(state: Path, base: str, root: bytes, path: str) -> bytes:
    client = tuf_client(state, base, root)
    client.refresh()
    info = client.get_targetinfo(path)
    assert info is not None
    return Path(client.download_target(info)).read_bytes()


def without_sources(target: AssignedTarget) -> AssignedTarget:
    return AssignedTarget(path=target.path, sha256=target.sha256, length=target.length)


def with_source(target: AssignedTarget, proxy: TcpProxy, path: str) -> AssignedTarget:
    source = f"http://127.0.0.1:{proxy.port}{path}"
    return AssignedTarget(
        path=target.path, sha256=target.sha256, length=target.length, sources=(source,)
    )
