"""How many turns there are at once, and how long one waits for more."""

import pytest

from broker.adapters.brokers.embedded.pace import Pace


def _waits(pace: Pace, times: int, now: float = 0.0) -> list[float]:
    return [round(pace.take(1, now), 6) for _ in range(times)]


def test_a_burst_waits_for_nothing_and_the_next_for_its_turn() -> None:
    assert _waits(Pace(10.0, 3), 5) == [0.0, 0.0, 0.0, 0.1, 0.2]


def test_who_pauses_has_a_burst_again_and_no_more() -> None:
    pace = Pace(10.0, 3)
    _waits(pace, 3)
    assert _waits(pace, 2, now=0.1) == [0.0, 0.1]
    assert _waits(pace, 4, now=1000.0) == [0.0, 0.0, 0.0, 0.1]


def test_who_keeps_to_the_pace_never_waits() -> None:
    pace = Pace(10.0, 1)
    assert all(pace.take(1, now / 9.9) == 0.0 for now in range(1000))


def test_several_turns_are_as_many_single_ones() -> None:
    pace = Pace(10.0, 3)
    assert pace.take(3, 0.0) == 0.0
    assert pace.take(4, 0.0) == pytest.approx(0.4)
