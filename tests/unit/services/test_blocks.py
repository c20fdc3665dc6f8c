"""A device gets the blocks of what is assigned to it, byte for byte, and of nothing else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.core.putting_off import PutOff
from broker.core.rate_limit import TokenBuckets
from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId
from broker.protocol.topics import DeviceOrigin
from broker.protocol.updates import AssignedTarget, BlockAccepted, BlockRequest
from broker.services import blocks
from broker.services.blocks import BlockService
from tests.support.desk import Desk, open_desk
from tests.support.images import PublishedImages, assignment

IMAGE = bytes(range(256)) * 300
ASKER = DeviceOrigin(DeviceId("lamp-A1"))


class Counter:
    """A service with one published image that is assigned to one device."""

    def __init__(self, desk: Desk, images: PublishedImages) -> None:
        self.desk = desk
        self.images = images
        self.target = images.add("lamp/image.bin", IMAGE)
        self.service = BlockService(desk.registry, images, desk.clock, TokenBuckets(1.0, 5))

    async def assign(self, device_id: str, *targets: AssignedTarget) -> None:
        await self.desk.write(("retain", assignment(device_id, *targets)))

    async def ask(
        self, offset: int = 0, length: int = 100, origin: DeviceOrigin = ASKER, **changes: str
    ) -> BlockAccepted:
        wanted = {"path": self.target.path, "sha256": self.target.sha256, **changes}
        request = BlockRequest(request_id="r", offset=offset, length=length, **wanted)
        reply = await self.service.block(origin, request)
        assert reply.topic == f"muster/v1/device/{origin.device_id}/block/accepted"
        return codec.decode(reply.payload, BlockAccepted, limits.MAX_ANSWER)

    async def refused(self, **changes: object) -> Code:
        with pytest.raises(Refused) as refused:
            await self.ask(**changes)  # type: ignore[arg-type]
        return refused.value.code


@pytest.fixture
async def counter(tmp_path: Path) -> AsyncIterator[Counter]:
    async with open_desk(tmp_path) as desk:
        opened = Counter(desk, PublishedImages(tmp_path))
        await opened.assign("lamp-A1", opened.target)
        yield opened


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.integers(0, len(IMAGE) - 1), st.integers(1, limits.MAX_BLOCK))
async def test_a_block_is_what_was_asked_for(counter: Counter, offset: int, length: int) -> None:
    answer = await counter.ask(offset, length)
    assert (answer.offset, answer.data) == (offset, IMAGE[offset : offset + length])


async def test_the_largest_block_fits_into_an_answer(counter: Counter) -> None:
    assert len((await counter.ask(0, limits.MAX_BLOCK)).data) == limits.MAX_BLOCK


async def test_beyond_the_end_there_is_nothing(counter: Counter) -> None:
    assert await counter.refused(offset=len(IMAGE)) is Code.FIELD_INVALID


async def test_who_isn_t_assigned_it_gets_nothing(counter: Counter) -> None:
    stranger = DeviceOrigin(DeviceId("lamp-A2"))
    assert await counter.refused(origin=stranger) is Code.IMAGE_NOT_ASSIGNED
    # An assignment that names another device than its topic is nobody's.
    payload = next(iter(assignment("lamp-A1", counter.target).values()))
    topic = next(iter(assignment("lamp-A2")))
    await counter.desk.write(("retain", {topic: payload}))
    assert await counter.refused(origin=stranger) is Code.IMAGE_NOT_ASSIGNED


async def test_only_this_very_image_is_given(counter: Counter) -> None:
    other = counter.images.add("lamp/other.bin", b"secret")
    assert await counter.refused(path=other.path, sha256=other.sha256) is Code.IMAGE_NOT_ASSIGNED
    assert await counter.refused(path=other.path) is Code.IMAGE_NOT_ASSIGNED
    assert await counter.refused(sha256=other.sha256) is Code.IMAGE_NOT_ASSIGNED


async def test_a_cancelled_assignment_gives_nothing_more(counter: Counter) -> None:
    await counter.assign("lamp-A1")
    assert await counter.refused() is Code.IMAGE_NOT_ASSIGNED
    topic = next(iter(assignment("lamp-A1")))
    await counter.desk.write(("retain", {topic: b""}))
    assert await counter.refused() is Code.IMAGE_NOT_ASSIGNED


async def test_what_is_assigned_but_not_published_isn_t_given(counter: Counter) -> None:
    ghost = AssignedTarget(path="ghost.bin", sha256="0" * 64, length=9)
    await counter.assign("lamp-A1", ghost)
    assert await counter.refused(path=ghost.path, sha256=ghost.sha256) is Code.IMAGE_NOT_ASSIGNED


async def test_a_device_that_asks_too_often_is_told_to_wait(counter: Counter) -> None:
    for _ in range(5):
        counter.service.admit(ASKER)
    with pytest.raises(Refused) as refused:
        counter.service.admit(ASKER)
    assert (refused.value.code, refused.value.retry_after_s) == (Code.RATE_LIMITED, 1)
    counter.service.admit(DeviceOrigin(DeviceId("lamp-A2")))


async def test_several_that_were_asked_for_at_once_are_each_told_and_a_flood_is_not(
    counter: Counter,
) -> None:
    told = 0
    for _ in range(500):
        try:
            counter.service.admit(ASKER)
        except PutOff as put_off:
            told += put_off.is_told
    assert told == 16


async def test_too_many_at_once_are_told_to_come_again(
    counter: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "_WAITING", 3)
    answers = await asyncio.gather(*(counter.ask(n, 10) for n in range(8)), return_exceptions=True)
    given = [each for each in answers if isinstance(each, BlockAccepted)]
    busy = [each for each in answers if isinstance(each, Refused) and each.code is Code.BUSY]
    assert (len(given), len(busy)) == (3, 5)
    assert (await counter.ask()).data == IMAGE[:100]
