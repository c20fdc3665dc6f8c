"""The updater with the real fetcher, from servers that misbehave: each attack has its code."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.protocol.messages import Rejected
from broker.protocol.updates import AssignedTarget, BlockAccepted, BlockRequest, Phase
from device_client.errors import RequestRejected
from device_client.fetch.limits import FetchLimits
from device_client.fetch.plan import fetch
from device_client.update.codes import UpdateCode
from device_client.update.sink import FileSink
from tests.support.hostile_http import Asked, Behaviour, Talk, honest, hostile
from tests.support.sinks import QUICK
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = bytes(range(256)) * 500
PATH = "meter/2.0.0/image"
PATIENT = replace(QUICK, fruitless=2)


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    made = MadeRepository()
    made.add(PATH, IMAGE)
    made.publish()
    return UpdatingDevice(tmp_path / "update", made)


@asynccontextmanager
async def assigned(
    device: UpdatingDevice, *behaviours: Behaviour, limits: FetchLimits = PATIENT
) -> AsyncIterator[bytes]:
    """An assignment whose image such a server has."""

    async def really(target: AssignedTarget, sink: FileSink) -> None:
        await fetch(target, sink, None, limits, "")

    device.fetch = really  # type: ignore[method-assign]
    async with hostile(*behaviours) as server:
        target = replace(device.made.add(PATH, IMAGE), sources=(server.url,))
        yield device.made.assign(target)


async def drip(_: Asked, talk: Talk) -> None:
    await talk.head(200, Content_Length=len(IMAGE))
    await talk.body(IMAGE[:100])
    await talk.until_gone()


async def test_honest(device: UpdatingDevice) -> None:
    async with assigned(device, honest(IMAGE)) as payload:
        await device.follow(payload)
    assert device.current() == IMAGE


async def test_resumed(device: UpdatingDevice) -> None:
    async with assigned(device, honest(IMAGE, cut_after=50_000), honest(IMAGE)) as payload:
        await device.follow(payload)
    assert device.current() == IMAGE


async def test_slow_retrieval(device: UpdatingDevice) -> None:
    hasty = replace(PATIENT, timeout_s=0.5, slow_window_s=0.2, least_rate=1_000_000.0)
    async with assigned(device, drip, limits=hasty) as payload:
        await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_TOO_SLOW)]
    assert device.current() == FACTORY


async def test_slow_retrieval_of_blocks(device: UpdatingDevice) -> None:
    """A broker that puts each block off has the device give up as a slow server has."""
    asked: list[BlockRequest] = []

    async def put_off(request: BlockRequest) -> BlockAccepted:
        asked.append(request)
        why = Rejected(request_id=request.request_id, code="busy", message="Later.", remedy="")
        raise RequestRejected(replace(why, retry_after_s=600))

    hasty = replace(PATIENT, slow_window_s=0.05, least_rate=1_000_000.0)

    async def by_blocks(target: AssignedTarget, sink: FileSink) -> None:
        await fetch(target, sink, put_off, hasty, "")

    device.fetch = by_blocks  # type: ignore[method-assign]
    await device.follow(device.made.assign(device.made.add(PATH, IMAGE)))
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_TOO_SLOW)]
    assert device.current() == FACTORY
    assert asked


async def test_endless_data(device: UpdatingDevice) -> None:
    async with assigned(device, honest(IMAGE * 3)) as payload:
        await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_TOO_LONG)]


async def test_arbitrary_software(device: UpdatingDevice) -> None:
    async with assigned(device, honest(IMAGE[::-1])) as payload:
        await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_WRONG)]
    assert device.current() == FACTORY


async def test_nobody_has_it(device: UpdatingDevice) -> None:
    async with assigned(device, drip) as payload:
        pass
    await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_UNAVAILABLE)]
