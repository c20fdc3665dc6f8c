"""A TUF client that isn't ours, on the fleet's broker: python-tuf's `Updater`, unmodified.

Only its fetcher is ours, as TUF has it for whatever network there is: metadata comes from the
retained topics, images by `block` requests. The device has no HTTP at all.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from broker.adapters.updates.ceremonies import RootChange
from broker.composition.registries import open_registry
from broker.core.rollout import Selection
from broker.operating.updating import update_repository
from broker.protocol import codec, limits
from broker.protocol.names import DeviceId
from broker.protocol.topics import (
    Desired,
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    desired_topic,
    device_topic,
    metadata_topic,
)
from broker.protocol.updates import BlockRequest
from broker.protocol.zones import Zone
from broker.services import rollouts
from broker.services.rollouts import Push
from broker.settings import BrokerKind
from tests.support.acting import joined
from tests.support.certificates import Client
from tests.support.peers import Heard, Peer, peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.update_devices import workshop_of
from tests.support.update_workshop import SetClock, Workshop
from tests.support.waiting import eventually

METADATA = "mqtt:metadata/"
TARGETS = "mqtt:targets/"
CONTENT = bytes(range(256)) * 400


@dataclass
class Wire:
    """What the device has heard, and how it asks."""

    connection: Peer
    device: DeviceId
    loop: asyncio.AbstractEventLoop
    retained: dict[str, bytes] = field(default_factory=dict)
    answers: asyncio.Queue[Heard] = field(default_factory=asyncio.Queue)
    _asked: int = 0

    async def listen(self) -> None:
        """Sorts what arrives, until it's cancelled."""
        branch = metadata_topic("")
        while True:
            heard = await self.connection.next(within=600)
            if heard.topic.startswith(branch):
                self.retained[heard.topic.removeprefix(branch)] = heard.payload
            else:
                self.answers.put_nowait(heard)

    async def block(self, path: str, sha256: str, offset: int) -> bytes:
        """The next bytes of an image; none at its end."""
        self._asked += 1
        request = BlockRequest(
            request_id=f"b{self._asked}",
            path=path,
            sha256=sha256,
            offset=offset,
            length=limits.MAX_BLOCK,
        )
        topic = device_topic(DeviceOrigin(self.device), Operation.BLOCK)
        await self.connection.say(topic, codec.encode(request))
        async with asyncio.timeout(60):
            answer = await self.answers.get()
        if answer.topic.endswith(Outcome.REJECTED):
            raise DownloadHTTPError(answer.payload.decode(), 403)
        data: bytes = base64.b64decode(msgspec.json.decode(answer.payload)["data"])
        return data


class MqttFetcher(FetcherInterface):
    """Runs in the updater's thread; the connection lives in the event loop's."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.fetched: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.fetched.append(url)
        if url.startswith(METADATA):
            content = self._wire.retained.get(url.removeprefix(METADATA))
            if not content:
                raise DownloadHTTPError(f"nothing is retained for {url}", 404)
            return iter([content])
        return self._blocks(url.removeprefix(TARGETS))

    def _blocks(self, name: str) -> Iterator[bytes]:
        folder, _, file = name.rpartition("/")
        sha256, _, bare = file.partition(".")
        offset = 0
        while offset < len(CONTENT):
            asked = self._wire.block(f"{folder}/{bare}", sha256, offset)
            data = asyncio.run_coroutine_threadsafe(asked, self._wire.loop).result(20)
            offset += len(data)
            yield data


@asynccontextmanager
async def wired(stack: Stack, client: Client) -> AsyncIterator[Wire]:
    """The device, hearing all metadata."""
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        wire = Wire(connection, DeviceId(client.name), asyncio.get_running_loop())
        listening = asyncio.create_task(wire.listen())
        topic = device_topic(DeviceOrigin(wire.device), Operation.BLOCK)
        await connection.hear(*(answer_topic(topic, outcome) for outcome in Outcome))
        await connection.hear(metadata_topic("+"))
        try:
            yield wire
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


def updater(folder: Path, root: bytes, fetcher: MqttFetcher) -> Updater:
    for name in ("metadata", "targets"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Updater(
        str(folder / "metadata"),
        METADATA,
        str(folder / "targets"),
        TARGETS,
        fetcher=fetcher,
        bootstrap=root,
    )


def install(folder: Path, root: bytes, wire: Wire, path: str) -> tuple[bytes, list[str]]:
    """The image's verified bytes, and what was fetched for it."""
    fetcher = MqttFetcher(wire)
    client = updater(folder, root, fetcher)
    client.refresh()
    found = client.get_targetinfo(path)
    assert found is not None, f"{path} isn't signed"
    return Path(client.download_target(found)).read_bytes(), fetcher.fetched


async def is_heard(workshop: Workshop, wire: Wire) -> bool:
    """Whether the broker shows exactly what is published."""
    files = update_repository(workshop.home, None).files()
    return all(wire.retained.get(name) == content for name, content in files.items())


async def push(stack: Stack, workshop: Workshop, path: str, name: str) -> None:
    published = update_repository(workshop.home, None).targets()
    plan = rollouts.planned(
        Push(name, (path,), Selection(everyone=True)), published, SetClock().now()
    )
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await rollouts.start(registry, SetClock(), plan)
        topic = desired_topic(DeviceId("lamp-A1"), Desired.UPDATE)

        async def is_told() -> bool:
            kept = await registry.read(lambda tx: tx.retained(topic))
            return kept is not None and name.encode() in kept.payload

        await eventually(is_told)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, Plan(brokers=BrokerKind.MOSQUITTO)) as running:
        await running.installation.standard([])
        yield running


async def test_python_tuf_updates_over_mqtt_alone(stack: Stack, tmp_path: Path) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    root = workshop.first_root()
    path = await asyncio.to_thread(workshop.publish_image, "1.0.0", CONTENT)
    (client,) = await joined(stack, tmp_path, "A1")
    await push(stack, workshop, path, "first")
    state = tmp_path / "device"
    async with wired(stack, client) as wire:
        await eventually(lambda: is_heard(workshop, wire))
        content, _ = await asyncio.to_thread(install, state, root, wire, path)
        assert content == CONTENT

        await asyncio.to_thread(rotate_root, workshop)
        newer = await asyncio.to_thread(workshop.publish_image, "1.1.0", CONTENT[::-1])
        await push(stack, workshop, newer, "second")
        await eventually(lambda: is_heard(workshop, wire))
        content, fetched = await asyncio.to_thread(install, state, root, wire, newer)
        assert content == CONTENT[::-1]
        assert f"{METADATA}2.root.json" in fetched


async def test_it_reads_all_of_it_again_from_a_broker_that_forgot(
    stack: Stack, tmp_path: Path
) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    root = workshop.first_root()
    path = await asyncio.to_thread(workshop.publish_image, "1.0.0", CONTENT)
    (client,) = await joined(stack, tmp_path, "A1")
    await push(stack, workshop, path, "first")
    async with wired(stack, client) as wire:
        await eventually(lambda: is_heard(workshop, wire))
    await stack.brokers[Zone.FLEET].restart()
    async with wired(stack, client) as wire:
        await eventually(lambda: is_heard(workshop, wire))
        content, _ = await asyncio.to_thread(install, tmp_path / "device", root, wire, path)
        assert content == CONTENT


def rotate_root(workshop: Workshop) -> None:
    """One of the three keys is replaced."""
    workshop.new_key("root-4")
    workshop.desk.rotate_root(
        RootChange(
            add_root=workshop.key_set(["root-4"], 1).keys, remove_root=[workshop.keyid("root-3")]
        ),
        "ed25519",
    )
    workshop.sign("root-1", "root-2", "root-4")
    workshop.desk.publish()
