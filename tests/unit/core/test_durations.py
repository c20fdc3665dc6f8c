"""Durations: what people write, and what is written back."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.durations import format_duration, parse_duration


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("15m", timedelta(minutes=15)),
        ("30s", timedelta(seconds=30)),
        ("2w", timedelta(weeks=2)),
        (" 1d ", timedelta(days=1)),
        ("9999999s", timedelta(seconds=9_999_999)),
    ],
)
def test_durations_are_read(text: str, duration: timedelta) -> None:
    assert parse_duration(text) == duration


@pytest.mark.parametrize(
    "text",
    ["", "0s", "-1d", "1", "d", "1.5h", "1 d", "1D", "1y", "01d", "1d2h", "10000000s", "\u0661d"],
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 90d"):
        parse_duration(text)


@given(st.integers(1, 9_999_999).map(lambda seconds: timedelta(seconds=seconds)))
def test_a_duration_round_trips(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration)) == duration


@given(st.integers(1, 9_999_999), st.sampled_from("smhdw"))
def test_what_is_written_back_is_never_longer(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert len(format_duration(parse_duration(text))) <= len(text)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (1, "1s"), (60, "1m"), (90, "90s"), (7 * 86_400, "1w")]
)
def test_the_largest_whole_unit_is_used(seconds: int, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text
