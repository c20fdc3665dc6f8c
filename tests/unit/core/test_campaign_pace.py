"""How many orders are given when: never faster than the pace, whatever the clock does."""

from dataclasses import replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from broker.core import campaign_pace
from broker.core.campaign import Campaign, CampaignId, CampaignState, Selection, SelectionKind
from broker.core.campaign_pace import (
    CATCH_UP,
    RENEW_WITHIN,
    WAVE_SHARE,
    WAVE_TIMEOUT,
    orders_due,
    renew_by,
    was_set_back,
    wave_is_over,
)
from tests.support.records import NOW

MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
ROUNDING = 0.001
"""An interval is a whole number of microseconds."""

paces = st.integers(1, 10_000)
pauses = st.lists(st.floats(0, 100_000).map(lambda s: timedelta(seconds=s)), max_size=40)


def campaign(per_minute: int = 60, wave_size: int | None = None) -> Campaign:
    return Campaign(
        CampaignId(1), Selection(SelectionKind.ALL), per_minute, wave_size, NOW, NOW, NOW
    )


def give(running: Campaign, now: datetime) -> tuple[Campaign, int]:
    due = orders_due(running, now)
    return campaign_pace.given(running, due, now), due


@given(paces, pauses)
def test_the_pace_is_kept_however_long_the_service_was_away(
    per_minute: int, pauses: list[timedelta]
) -> None:
    running, now, given_in_all = campaign(per_minute), NOW, 0
    for pause in pauses:
        now += pause
        running, due = give(running, now)
        given_in_all += due
        at_once = max(CATCH_UP, MINUTE / per_minute)
        assert due <= at_once / MINUTE * per_minute + 1
        assert given_in_all <= (now - NOW) / MINUTE * per_minute * (1 + ROUNDING) + 1
        assert running.paced_to <= now


@given(paces, st.integers(1, 120))
def test_asked_often_it_reaches_its_pace(per_minute: int, seconds: int) -> None:
    running, total = campaign(per_minute), 0
    for half in range(2 * seconds):
        running, due = give(running, NOW + (half + 1) * SECOND / 2)
        total += due
    wanted = seconds * per_minute / 60
    assert abs(total - wanted) <= 1 + ROUNDING * wanted


@given(paces, st.floats(-1e7, 1e7))
def test_a_clock_that_was_set_stops_nothing_and_causes_no_herd(
    per_minute: int, by_seconds: float
) -> None:
    jumped = NOW + timedelta(seconds=by_seconds)
    running, due = give(campaign(per_minute), jumped)
    at_once = max(CATCH_UP, MINUTE / per_minute)
    assert due <= at_once / MINUTE * per_minute + 1
    assert not was_set_back(running, jumped)
    assert orders_due(running, jumped + at_once) >= 1


def test_only_a_running_campaign_gives_orders() -> None:
    for state in set(CampaignState) - {CampaignState.RUNNING}:
        assert orders_due(replace(campaign(), state=state), NOW + MINUTE) == 0


@given(st.integers(1, 50), st.integers(0, 50), st.floats(0, 2))
def test_a_wave_ends_by_share_or_by_time(size: int, settled: int, hours: float) -> None:
    settled = min(settled, size)
    full = replace(campaign(6000, size), wave_given=size, wave_settled=settled, wave_full_at=NOW)
    now = NOW + timedelta(hours=hours)
    is_over = settled >= WAVE_SHARE * size or now - NOW >= WAVE_TIMEOUT
    assert wave_is_over(full, now) is is_over
    assert (orders_due(full, now + MINUTE) > 0) >= is_over


@given(st.integers(1, 30), st.integers(1, 6000), pauses)
def test_no_wave_is_larger_than_it_may_be(
    size: int, per_minute: int, pauses: list[timedelta]
) -> None:
    running, now = campaign(per_minute, size), NOW
    for pause in pauses:
        now += pause
        wave = running.wave
        running, due = give(running, now)
        assert running.wave_given <= size
        assert running.wave in (wave, wave + 1)
        assert due <= size


def test_a_wave_s_time_starts_anew_when_the_clock_was_set_back() -> None:
    full = replace(campaign(60, 4), wave_given=4, wave_full_at=NOW + 2 * WAVE_TIMEOUT)
    assert was_set_back(full, NOW)
    assert campaign_pace.given(full, 0, NOW).wave_full_at == NOW


def test_an_unfinished_wave_goes_on_and_the_next_one_waits() -> None:
    running, due = give(campaign(60, 4), NOW + 3 * SECOND)
    assert (due, running.wave, running.wave_given) == (3, 1, 3)
    assert not wave_is_over(running, NOW + 5 * WAVE_TIMEOUT)
    running, due = give(running, NOW + 9 * SECOND)
    assert (due, running.wave_full_at) == (1, NOW + 9 * SECOND)
    assert orders_due(running, NOW + MINUTE) == 0
    running, due = give(replace(running, wave_settled=4), NOW + MINUTE)
    assert (due, running.wave, running.wave_given, running.wave_settled) == (4, 2, 4, 0)


def test_giving_none_changes_nothing() -> None:
    assert campaign_pace.given(campaign(), 0, NOW + MINUTE) == campaign()


def test_a_few_devices_aren_t_kept_waiting_and_many_spread() -> None:
    assert renew_by(replace(campaign(), waiting=1), NOW) == NOW + SECOND
    assert renew_by(replace(campaign(), waiting=5000), NOW) == NOW + RENEW_WITHIN
