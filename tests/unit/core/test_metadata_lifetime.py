"""When metadata is signed anew, and when somebody is warned."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.metadata_lifetime import Lifetimes, is_due, is_lapsing, support_state
from broker.protocol.updates import ImageFacts

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIFETIMES = st.timedeltas(timedelta(seconds=1), timedelta(days=3650))


def test_a_third_is_left_when_it_is_signed_anew() -> None:
    life = timedelta(days=3)
    assert not is_due(NOW + timedelta(days=1, seconds=1), life, NOW)
    assert is_due(NOW + timedelta(days=1), life, NOW)
    assert is_due(NOW - timedelta(days=9), life, NOW)


@given(LIFETIMES, st.timedeltas(timedelta(days=-10), timedelta(days=3650)))
def test_who_is_warned_of_it_could_have_signed_it_before(life: timedelta, left: timedelta) -> None:
    if is_lapsing(NOW + left, life, NOW):
        assert is_due(NOW + left, life, NOW)


@given(LIFETIMES, st.timedeltas(timedelta(0), timedelta(days=365)))
def test_a_clock_that_went_back_makes_nothing_due(life: timedelta, back: timedelta) -> None:
    assert not is_due(NOW + life, life, NOW - back)


def test_a_ceremony_has_weeks() -> None:
    year = Lifetimes().root
    assert not is_lapsing(NOW + timedelta(days=46), year, NOW)
    assert is_lapsing(NOW + timedelta(days=45), year, NOW)


def test_a_model_lives_as_long_as_targets() -> None:
    lifetimes = Lifetimes(targets=timedelta(days=5))
    assert lifetimes.of("model-meter") == lifetimes.of("targets") == timedelta(days=5)
    assert lifetimes.of("root") == lifetimes.root


@pytest.mark.parametrize(
    ("until", "state"),
    [
        (None, "unstated"),
        (NOW, "ended"),
        (NOW + timedelta(days=90), "ending"),
        (NOW + timedelta(days=91), "supported"),
    ],
)
def test_support(until: datetime | None, state: str) -> None:
    facts = ImageFacts(model="m", version="1", security_counter=0, support_until=until)
    assert support_state(facts, NOW) == state
