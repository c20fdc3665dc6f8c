"""What can't be a pace or a stop rule is refused, and how fast a rate gives."""

import math
from datetime import UTC, datetime, timedelta

import pytest

from broker.core.rollout_pace import Pace, StopRule, refilled

NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"per_minute": 0}, "at least 1 a minute"),
        ({"wave_size": 0}, "at least 1 device"),
        ({"percent": ()}, "rise from above 0 to 100"),
        ({"percent": (0.0, 100.0)}, "rise from above 0 to 100"),
        ({"percent": (50.0, 10.0, 100.0)}, "rise from above 0 to 100"),
        ({"percent": (10.0, 50.0)}, "rise from above 0 to 100"),
    ],
)
def test_a_pace_that_is_none(fields: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Pace(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("above", "after"), [(-0.1, 1), (1.1, 1), (0.5, 0)])
def test_a_stop_rule_that_is_none(above: float, after: int) -> None:
    with pytest.raises(ValueError, match=r"share|at least 1"):
        StopRule(above, after)


def test_past_the_last_wave_everybody_may_be_told() -> None:
    assert Pace(percent=(10.0, 100.0)).limit(5, 40) == 40


def test_a_rate_gives_one_at_first_then_by_time_and_nothing_for_a_clock_set_back() -> None:
    pace = Pace(per_minute=60)
    first = refilled(pace, None, NOW)
    assert first.tokens == 1.0
    later = refilled(pace, first, NOW + timedelta(seconds=1))
    assert later.tokens > first.tokens
    assert refilled(pace, later, NOW - timedelta(hours=1)).tokens == later.tokens
    assert refilled(Pace(), None, NOW).tokens == math.inf
