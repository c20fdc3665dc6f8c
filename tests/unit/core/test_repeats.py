"""Folding repetitions: little is logged at once, and nothing is lost."""

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from broker.core.repeats import Repeats

WINDOW_S = 60.0
HAPPENINGS = st.lists(st.tuples(st.sampled_from("abcdef"), st.floats(0, 50)), max_size=100)


def test_the_first_is_logged_and_the_rest_counted() -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    assert [repeats.is_first("k", now) for now in (0.0, 1.0, 59.9)] == [True, False, False]
    assert list(repeats.closed(59.9)) == []
    assert list(repeats.closed(60.0)) == [("k", 2)]
    assert len(repeats) == 0


def test_a_window_that_saw_one_only_closes_silently() -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    repeats.is_first("k", 0.0)
    assert list(repeats.closed(60.0)) == []
    assert len(repeats) == 0
    assert repeats.is_first("k", 60.0)


def test_a_window_over_but_not_yet_closed_opens_anew_and_keeps_its_count() -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    for now in (0.0, 1.0, 2.0):
        repeats.is_first("k", now)
    assert repeats.is_first("k", 61.0)
    assert list(repeats.closed(120.0)) == []
    assert list(repeats.closed(121.0)) == [("k", 2)]


def test_kinds_are_told_apart() -> None:
    repeats: Repeats[tuple[str, int]] = Repeats(WINDOW_S)
    assert repeats.is_first(("a", 1), 0.0)
    assert repeats.is_first(("a", 2), 0.0)


def test_only_windows_that_are_over_close() -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    for key, now in [("a", 0.0), ("a", 0.0), ("b", 30.0), ("b", 30.0)]:
        repeats.is_first(key, now)
    assert list(repeats.closed(70.0)) == [("a", 1)]
    assert list(repeats.closed(90.0)) == [("b", 1)]


def test_beyond_its_bound_new_kinds_are_counted_only() -> None:
    repeats: Repeats[int] = Repeats(WINDOW_S, max_keys=3)
    assert [repeats.is_first(key, 0.0) for key in range(5)] == [True] * 3 + [False] * 2
    assert repeats.overflowed == 2
    assert not repeats.is_first(0, 1.0)
    assert list(repeats.closed(60.0)) == [(0, 1)]
    assert repeats.is_first(4, 60.0)


@given(HAPPENINGS, st.integers(1, 4))
def test_everything_is_logged_counted_or_overflowed_and_memory_is_bounded(
    happenings: list[tuple[str, float]], most: int
) -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S, most)
    now, seen = 0.0, 0
    for key, gap in happenings:
        now += gap
        seen += repeats.is_first(key, now)
        if gap > 25:
            seen += sum(count for _, count in repeats.closed(now))
        assert len(repeats) <= most
    seen += sum(count for _, count in repeats.closed(now + 2 * WINDOW_S))
    assert seen + repeats.overflowed == len(happenings)
    assert len(repeats) == 0


@given(HAPPENINGS)
def test_under_its_bound_nothing_is_lost_of_any_kind(happenings: list[tuple[str, float]]) -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    now = 0.0
    told: Counter[str] = Counter()
    for key, gap in happenings:
        now += gap
        told[key] += repeats.is_first(key, now)
    told.update(dict(repeats.closed(now + 2 * WINDOW_S)))
    assert repeats.overflowed == 0
    assert +told == Counter(key for key, _ in happenings)


@given(st.lists(st.floats(0, 200), max_size=60))
def test_one_kind_is_logged_at_most_once_in_a_window(gaps: list[float]) -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    now, logged = 0.0, []
    for gap in gaps:
        now += gap
        if repeats.is_first("k", now):
            logged.append(now)
    assert all(later - earlier >= WINDOW_S for earlier, later in pairwise(logged))


def test_a_kind_that_goes_on_doesn_t_hold_up_those_that_have_ended() -> None:
    repeats: Repeats[str] = Repeats(WINDOW_S)
    for key, now in [("goes on", 0.0), ("ended", 30.0), ("ended", 31.0), ("goes on", 65.0)]:
        repeats.is_first(key, now)
    assert list(repeats.closed(95.0)) == [("ended", 1)]


def test_what_could_not_be_logged_is_logged_the_next_time() -> None:
    repeats: Repeats[str] = Repeats(60.0)
    assert repeats.is_first("a", 0.0)
    repeats.forget("a")
    assert repeats.is_first("a", 1.0)


def test_the_overflow_is_taken_once() -> None:
    repeats: Repeats[int] = Repeats(60.0, max_keys=1)
    assert [repeats.is_first(key, 0.0) for key in range(3)] == [True, False, False]
    assert (repeats.take_overflowed(), repeats.take_overflowed()) == (2, 0)
