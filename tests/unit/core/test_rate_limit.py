"""Token buckets: never more than they promise, never less, and in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rate_limit import TokenBuckets

RATES = st.floats(0.01, 1000)
BURSTS = st.integers(1, 50)
GAPS = st.lists(st.floats(0, 20), min_size=1, max_size=200)
ROUNDING = 1e-6


@given(RATES, BURSTS, GAPS)
def test_never_more_than_the_burst_and_what_time_brought(
    rate: float, burst: int, gaps: list[float]
) -> None:
    """In any stretch of time, not only from the beginning."""
    buckets = TokenBuckets(rate, burst)
    now, taken = 1000.0, []
    for gap in gaps:
        now += gap
        if buckets.take("k", now) == 0.0:
            taken.append(now)
    for first in range(0, len(taken), 7):
        granted = len(taken) - first
        assert granted <= burst + rate * (taken[-1] - taken[first]) + ROUNDING


@given(RATES, BURSTS, GAPS)
def test_whoever_waits_as_told_is_let_through(rate: float, burst: int, gaps: list[float]) -> None:
    buckets = TokenBuckets(rate, burst)
    now = 0.0
    for gap in gaps:
        now += gap
        wait = buckets.take("k", now)
        assert 0.0 <= wait <= 1 / rate
        if wait:
            now += wait + 0.001
            assert buckets.take("k", now) == 0.0


def test_a_burst_goes_through_at_once_and_the_next_waits() -> None:
    buckets = TokenBuckets(per_second=2.0, burst=3)
    assert [buckets.take("k", 5.0) for _ in range(3)] == [0.0] * 3
    assert buckets.take("k", 5.0) == 0.5


def test_refused_requests_cost_nothing() -> None:
    buckets = TokenBuckets(per_second=1.0, burst=1)
    buckets.take("k", 0.0)
    waits = [buckets.take("k", tenth / 10) for tenth in range(1, 10)]
    assert waits == pytest.approx([1 - tenth / 10 for tenth in range(1, 10)])
    assert buckets.take("k", 1.0 + ROUNDING) == 0.0


def test_rest_never_saves_up_more_than_a_burst() -> None:
    buckets = TokenBuckets(per_second=100.0, burst=2)
    buckets.take("k", 0.0)
    assert [buckets.take("k", 1e6) == 0.0 for _ in range(3)] == [True, True, False]


def test_one_key_doesn_t_use_up_another_s() -> None:
    buckets = TokenBuckets(per_second=1.0, burst=1)
    assert buckets.take("a", 0.0) == 0.0
    assert buckets.take("a", 0.0) > 0.0
    assert buckets.take("b", 0.0) == 0.0


@given(st.lists(st.sampled_from("abcdefgh"), max_size=60), st.integers(1, 5))
def test_memory_is_bounded_and_the_longest_unused_key_goes(keys: list[str], most: int) -> None:
    buckets = TokenBuckets(per_second=0.001, burst=1, max_keys=most)
    remembered: list[str] = []
    for key in keys:
        known = key in remembered
        assert (buckets.take(key, 0.0) > 0.0) is known
        remembered = [k for k in remembered if k != key][-(most - 1) :] if most > 1 else []
        remembered.append(key)
        assert len(buckets) == len(remembered) <= most
