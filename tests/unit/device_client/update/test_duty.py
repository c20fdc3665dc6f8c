"""The duty on a connection: what is retained, what is news, and a newer assignment in between."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from broker.protocol.topics import Desired, desired_topic, metadata_topic
from broker.protocol.updates import AssignedTarget, Phase
from device_client.errors import ConnectionLost
from device_client.online import Online
from device_client.packets import Publication
from device_client.update.duty import Lines, UpdateDuty
from device_client.update.health import Line
from device_client.update.journal import Stage
from device_client.update.reports import Reporting
from device_client.update.sink import FileSink
from device_client.update.sources import RetainedSource
from device_client.update.store import MetadataStore
from device_client.update.trial import attend
from device_client.watching import Watch
from tests.support.update_repository import MadeRepository
from tests.support.updating import DEVICE, UpdatingDevice, flashed, no_waiting
from tests.support.waiting import eventually

DESIRED = desired_topic(DEVICE, Desired.UPDATE)


class Broker:
    """Retains, and repeats what it retains to each new watch, to the others too."""

    def __init__(self) -> None:
        self.retained: dict[str, bytes] = {}
        self.watches: list[Watch] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked = 0
        self.silent_s = 60.0

    @asynccontextmanager
    async def watch(self, *filters: str, retained: bool = True) -> AsyncIterator[Watch]:
        """As a connection's."""
        watch = Watch(filters, self.ended)
        self.watches.append(watch)
        self.asked += 1
        for topic in filters:
            if topic in self.retained and retained:
                self.say(topic, self.retained[topic])
        try:
            yield watch
        finally:
            self.watches.remove(watch)

    def say(self, topic: str, payload: bytes) -> None:
        """To whom it concerns."""
        for watch in self.watches:
            watch.take(Publication(topic=topic, payload=payload, packet_id=None))

    def retain(self, topic: str, payload: bytes) -> None:
        """And says it."""
        self.retained[topic] = payload
        self.say(topic, payload)

    def publish(self, made: MadeRepository) -> None:
        """All of the repository."""
        for name, data in made.files.items():
            self.retain(metadata_topic(name), data)


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", MadeRepository())


@asynccontextmanager
async def performing(
    device: UpdatingDevice, broker: Broker, fetch: Callable[..., Awaitable[None]]
) -> AsyncIterator[asyncio.Task[None]]:
    """The duty at work, its reports unheard, and the part beside it."""
    online = Online(cast(Any, SimpleNamespace(device_id=DEVICE)), cast(Any, broker))
    reporting = Reporting(device.updater, (1.0,), no_waiting())
    reporting.send = cast(Any, lambda _online: asyncio.Event().wait())  # type: ignore[method-assign]
    lines = Lines(
        source=lambda on: RetainedSource(on.connection, 0.05), fetch=lambda _: cast(Any, fetch)
    )
    store = MetadataStore(device.home / "metadata", device.made.first_root)
    line = Line()
    duty = UpdateDuty(
        device.updater, store, device.timekeeper, lines, reporting, no_waiting(), line
    )
    beside = asyncio.create_task(attend(device.updater))
    task = asyncio.create_task(duty.perform(online))
    try:
        yield task
    finally:
        for each in (task, beside):
            each.cancel()
            with suppress(asyncio.CancelledError, BaseExceptionGroup):
                await each
        assert line.connection is None


async def test_what_is_retained_is_followed_once(device: UpdatingDevice) -> None:
    broker = Broker()
    target = device.made.add("image", b"image")
    device.made.publish()
    broker.publish(device.made)
    broker.retain(DESIRED, device.made.assign(target))
    async with performing(device, broker, device.fetch):
        await eventually(lambda: bool(device.finals()))
        asked = broker.asked
        for topic, payload in list(broker.retained.items()):
            broker.say(topic, payload)
        await asyncio.sleep(0)
        assert broker.asked == asked, "the same again is no news"
    assert device.current() == b"image"


async def test_metadata_that_comes_late(device: UpdatingDevice) -> None:
    broker = Broker()
    target = device.made.add("image", b"image")
    device.made.publish()
    async with performing(device, broker, device.fetch):
        broker.retain(DESIRED, device.made.assign(target))
        await eventually(lambda: device.updater.state.refusal is not None)
        broker.publish(device.made)
        await eventually(lambda: bool(device.finals()))
    assert device.finals() == [(1, Phase.INSTALLED, None)]


async def test_a_newer_assignment_interrupts_a_download(device: UpdatingDevice) -> None:
    broker = Broker()
    first, second = device.made.add("one", b"one"), device.made.add("two", b"two")
    device.made.publish()
    broker.publish(device.made)
    begun, cancelled = asyncio.Event(), list[str]()

    async def fetch(target: AssignedTarget, sink: FileSink) -> None:
        if target.path == "one":
            try:
                begun.set()
                await asyncio.Event().wait()
            finally:
                cancelled.append(target.path)
        await device.fetch(target, sink)

    async with performing(device, broker, fetch):
        broker.retain(DESIRED, device.made.assign(first))
        await eventually(begun.is_set)
        assert device.updater.state.stage is Stage.DOWNLOADING
        broker.retain(DESIRED, device.made.assign(second, sequence=2, rollout="summer"))
        await eventually(lambda: len(device.finals()) == 2)
    assert cancelled == ["one"]
    assert device.finals() == [(1, Phase.CANCELLED, "superseded"), (2, Phase.INSTALLED, None)]


async def test_the_end_of_the_connection_is_passed_on(device: UpdatingDevice) -> None:
    broker = Broker()
    async with performing(device, broker, device.fetch) as task:
        await eventually(lambda: bool(broker.watches))
        broker.ended.set_result(None)
        with pytest.raises(BaseExceptionGroup) as caught:
            await task
    assert caught.value.subgroup(ConnectionLost) is not None
