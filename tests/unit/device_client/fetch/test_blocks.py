"""Blocks over MQTT: in order, a few at a time, from where the sink is."""

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.protocol.limits import MAX_BLOCK
from broker.protocol.messages import Rejected
from broker.protocol.updates import BlockAccepted, BlockRequest
from device_client.errors import ConnectionLost, DeviceError, NoAnswer, RequestRejected
from device_client.fetch.errors import ImageTooSlow, ImageUnavailable, SourceUnfit
from device_client.fetch.intake import Pace
from device_client.fetch.plan import fetch
from tests.support.hostile_http import answers, honest, hostile
from tests.support.sinks import QUICK, MemorySink, quick, target_of

IMAGE = bytes(range(251)) * 1000


def rejected(code: str, retry_after_s: int | None = None) -> RequestRejected:
    return RequestRejected(
        Rejected(request_id="r", code=code, message="No.", remedy="", retry_after_s=retry_after_s)
    )


class Service:
    """Answers from an image; a script of errors comes first."""

    def __init__(self, image: bytes = IMAGE, *errors: DeviceError) -> None:
        self.image = image
        self.errors = list(errors)
        self.asked: list[BlockRequest] = []
        self.at_once = self.most_at_once = 0
        self.twist: Callable[[BlockAccepted], BlockAccepted] = lambda answer: answer

    async def __call__(self, request: BlockRequest) -> BlockAccepted:
        self.asked.append(request)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop(0)
        data = self.image[request.offset : request.offset + request.length]
        return self.twist(
            BlockAccepted(request_id=request.request_id, offset=request.offset, data=data)
        )


async def fetched(service: Service, sink: MemorySink | None = None) -> MemorySink:
    into = sink or MemorySink()
    await fetch(target_of(service.image), into, service, QUICK, "")
    assert bytes(into.data) == service.image
    return into


@settings(max_examples=30)
@given(length=st.integers(0, 3 * MAX_BLOCK + 5), held=st.integers(0, 2 * MAX_BLOCK))
async def test_the_blocks_make_up_the_image(length: int, held: int) -> None:
    image = IMAGE[:length]
    service = Service(image)
    await fetched(service, MemorySink(image[:held]))
    assert sum(each.length for each in service.asked) == length - min(held, length)
    assert {each.path for each in service.asked} <= {"image.bin"}
    assert len({each.request_id for each in service.asked}) == len(service.asked)


async def test_a_few_are_on_their_way_at_once() -> None:
    service = Service()
    await fetched(service)
    assert service.most_at_once == QUICK.blocks_at_once


async def test_a_service_that_is_busy_is_asked_again_when_it_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("device_client.fetch.blocks.asyncio.sleep", sleep)
    service = Service(IMAGE[:100], rejected("rate_limited", 7), rejected("busy"))
    # The service's own pause between answers is the real thing's, not what is looked at here.
    await fetched(service)
    long = [wait for wait in waits if wait]
    assert 7 <= long[0] <= 7 * 1.25
    assert 1 <= long[1] <= 1.25


async def test_an_image_that_isn_t_assigned_is_given_up_at_once() -> None:
    service = Service(IMAGE, *[rejected("image_not_assigned")] * 10)
    with pytest.raises(SourceUnfit):
        await fetched(service)
    assert len(service.asked) <= QUICK.blocks_at_once


async def test_no_answer_is_asked_for_again_and_then_no_more() -> None:
    await fetched(Service(IMAGE, NoAnswer("nothing")))
    with pytest.raises(ImageUnavailable):
        await fetched(Service(IMAGE, *[NoAnswer("nothing")] * 100))


async def test_a_lost_connection_is_the_caller_s_to_mend() -> None:
    sink = MemorySink()
    service = Service(IMAGE)
    service.twist = lambda answer: answer if answer.offset < 2 * MAX_BLOCK else lose()

    def lose() -> BlockAccepted:
        raise ConnectionLost("gone")

    with pytest.raises(ConnectionLost):
        await fetched(service, sink)
    assert sink.position == 2 * MAX_BLOCK
    again = Service(IMAGE)
    await fetched(again, sink)
    assert again.asked[0].offset == 2 * MAX_BLOCK


@pytest.mark.parametrize("offset", [-1, 0, 1])
@pytest.mark.parametrize("surplus", [-1, 0, 1])
async def test_another_block_than_was_asked_for_isn_t_taken(offset: int, surplus: int) -> None:
    if not offset and not surplus:
        return
    service, sink = Service(), MemorySink()
    service.twist = lambda answer: BlockAccepted(
        request_id=answer.request_id,
        offset=answer.offset + offset,
        data=(answer.data + b"!")[: len(answer.data) + surplus],
    )
    with pytest.raises(ImageUnavailable):
        await fetched(service, sink)
    assert sink.position == 0


class Clock:
    """Goes on only when somebody sleeps or is late."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 0.0
        self._yield = asyncio.sleep
        pace = partial(Pace, clock=lambda: self.now_s)
        monkeypatch.setattr("device_client.fetch.blocks.Pace", pace)
        monkeypatch.setattr("device_client.fetch.blocks.asyncio.sleep", self.sleep)

    async def sleep(self, seconds: float) -> None:
        await self._yield(0)
        self.now_s += seconds


@pytest.mark.parametrize(
    ("late_s", "is_slow"), [(32_768 / 257, False), (32_768 / 255, True), (3_000.0, True)]
)
async def test_blocks_that_come_at_the_last_moment(
    monkeypatch: pytest.MonkeyPatch, late_s: float, is_slow: bool
) -> None:
    """One at a time is asked for, so that the rate is known; the image has whole blocks only."""
    clock, sink = Clock(monkeypatch), MemorySink()
    image = bytes(8 * MAX_BLOCK)
    service = Service(image)

    async def late(request: BlockRequest) -> BlockAccepted:
        clock.now_s += late_s
        return await service(request)

    limits = quick(blocks_at_once=1, slow_window_s=60.0, least_rate=256.0, fruitless=2)
    fetching = fetch(target_of(image), sink, late, limits, "")
    if not is_slow:
        await fetching
    else:
        with pytest.raises(ImageTooSlow):
            await fetching
    assert sink.position == (0 if is_slow else len(image)), "too late is too late"


@pytest.mark.parametrize("put_off_s", [1, 600, None])
async def test_a_block_that_is_put_off_or_never_comes(put_off_s: int | None) -> None:
    async def never(request: BlockRequest) -> BlockAccepted:
        if put_off_s is None:
            await asyncio.Event().wait()
        raise rejected("busy", put_off_s)

    limits = quick(slow_window_s=0.02, least_rate=MAX_BLOCK / 0.02, fruitless=2)
    with pytest.raises(ImageTooSlow):
        await fetch(target_of(IMAGE), MemorySink(), never, limits, "")


async def test_its_own_rate_isn_t_held_against_the_service(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A device that may take ten bytes a second gets an image all the same."""
    Clock(monkeypatch)
    sink = MemorySink()
    limits = quick(slow_window_s=60.0, least_rate=256.0, rate=10.0)
    await fetch(target_of(IMAGE), sink, Service(), limits, "")
    assert bytes(sink.data) == IMAGE


async def test_blocks_are_the_last_resort_and_go_on_where_the_others_stopped() -> None:
    sink, service = MemorySink(), Service()
    async with (
        hostile(honest(IMAGE, cut_after=1000), answers(404)) as first,
        hostile(answers(404)) as second,
    ):
        target = target_of(IMAGE, first.url, second.url)
        await fetch(target, sink, service, quick(slow_window_s=10.0, least_rate=1000.0), "")
    assert bytes(sink.data) == IMAGE
    assert service.asked[0].offset == 1000
    assert sink.restarts == 0


async def test_without_a_source_there_is_nothing_to_be_had() -> None:
    with pytest.raises(ImageUnavailable, match="no source"):
        await fetch(target_of(IMAGE), MemorySink(), None, QUICK, "")


async def test_a_sink_with_too_much_begins_again() -> None:
    sink = MemorySink(b"x" * (len(IMAGE) + 1))
    await fetched(Service(), sink)
    assert sink.restarts == 1


async def test_nobody_has_it_wait_for_a_year(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    await fetched(Service(IMAGE, rejected("rate_limited", 31_536_000)))
    assert 3600 <= max(waited) <= 4500, "an hour, and up to a quarter more"
