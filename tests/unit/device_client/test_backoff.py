"""Waiting times grow, stay below their bounds and spread out."""

import random

from hypothesis import given
from hypothesis import strategies as st

from device_client.backoff import Backoff, no_sooner_than

bases = st.floats(0.01, 60)
factors = st.floats(1, 1000)
chances = st.floats(0, 1, exclude_max=True)


@given(bases, factors, chances, st.integers(1, 40))
def test_the_bound_doubles_up_to_the_cap(
    base_s: float, factor: float, chance: float, tries: int
) -> None:
    cap_s = base_s * factor
    backoff = Backoff(base_s, cap_s, lambda: chance)
    for number in range(tries):
        assert backoff.next() == min(base_s * 2**number, cap_s) * chance


@given(bases, factors, st.integers(1, 40))
def test_a_reset_begins_anew(base_s: float, factor: float, tries: int) -> None:
    backoff = Backoff(base_s, base_s * factor, lambda: 0.5)
    first = backoff.next()
    for _ in range(tries):
        backoff.next()
    backoff.reset()
    assert backoff.next() == first


def test_a_fleet_spreads_over_the_whole_interval() -> None:
    chance = random.Random(1).random
    waits = [Backoff(60, 60, chance).next() for _ in range(1000)]
    for second in range(0, 60, 10):
        assert sum(second <= wait < second + 10 for wait in waits) > 100


@given(st.floats(0, 86_400), chances)
def test_what_was_asked_for_is_kept(least_s: float, chance: float) -> None:
    assert least_s <= no_sooner_than(least_s, lambda: chance) <= least_s * 1.25


def test_those_who_were_told_the_same_do_not_return_together() -> None:
    chance = random.Random(1).random
    assert len({round(no_sooner_than(60, chance)) for _ in range(100)}) > 10
