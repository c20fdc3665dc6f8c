"""Which source comes first, and which goes last."""

from device_client.fetch.plan import fetch
from device_client.fetch.suspects import Suspects
from tests.support.hostile_http import honest, hostile
from tests.support.sinks import QUICK, MemorySink, quick, target_of

IMAGE = bytes(range(256)) * 100
FAKE = IMAGE[::-1]


async def test_who_gave_a_wrong_image_goes_last_when_it_is_fetched_again() -> None:
    async with hostile(honest(FAKE)) as liar, hostile(honest(IMAGE)) as good:
        target, suspects = target_of(IMAGE, liar.url, good.url), Suspects()
        sink = MemorySink()
        await fetch(target, sink, None, QUICK, "", suspects)
        assert bytes(sink.data) == FAKE
        sink = MemorySink()
        await fetch(target, sink, None, QUICK, "", suspects)
        assert bytes(sink.data) == IMAGE
    assert (len(liar.asked), len(good.asked)) == (1, 1)


async def test_who_gave_a_part_of_it_goes_last_too() -> None:
    async with (
        hostile(honest(FAKE, cut_after=1000), honest(FAKE)) as liar,
        hostile(honest(IMAGE)) as good,
        hostile(honest(IMAGE)) as last,
    ):
        suspects = Suspects()
        two = target_of(IMAGE, liar.url, good.url)
        sink = MemorySink()
        limits = quick(slow_window_s=10.0, least_rate=1000.0)  # a cut after 1000 bytes: the next
        await fetch(two, sink, None, limits, "", suspects)
        assert bytes(sink.data) != IMAGE
        sink = MemorySink()
        await fetch(
            target_of(IMAGE, liar.url, good.url, last.url), sink, None, limits, "", suspects
        )
        assert bytes(sink.data) == IMAGE
        assert last.asked


async def test_another_image_of_the_same_source_isn_t_held_against_it() -> None:
    async with hostile(honest(FAKE)) as first, hostile(honest(FAKE)) as second:
        suspects = Suspects()
        await fetch(target_of(IMAGE, first.url), MemorySink(), None, QUICK, "", suspects)
        other = target_of(FAKE, first.url, second.url)
        await fetch(other, MemorySink(), None, QUICK, "", suspects)
    assert second.asked == []


def test_the_memory_is_bounded() -> None:
    suspects = Suspects()
    for n in range(100):
        suspects.completed(str(n), ["x"])
    assert not suspects.of("0")
    assert suspects.of("99") == {"x"}
    suspects.completed("99", ["y"])
    assert suspects.of("99") == {"x", "y"}
