"""When certificates are renewed."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from device_client.schedule import renewal_time, spread

NOW = datetime(2026, 6, 1, tzinfo=UTC)
DRAWS = st.floats(0, 1, exclude_max=True)
SPANS = st.timedeltas(timedelta(seconds=1), timedelta(days=3650))


@given(SPANS, DRAWS)
def test_between_57_and_77_per_cent_of_the_lifetime(lifetime: timedelta, draw: float) -> None:
    share = (renewal_time(NOW, NOW + lifetime, draw) - NOW) / lifetime
    assert 0.566 < share < 0.767


@given(SPANS, DRAWS)
def test_an_order_is_followed_in_the_time_that_is_left(left: timedelta, draw: float) -> None:
    assert NOW <= spread(NOW, NOW + left, draw) <= NOW + left


@given(SPANS, DRAWS)
def test_an_order_whose_time_is_over_is_followed_now(late: timedelta, draw: float) -> None:
    assert spread(NOW, NOW - late, draw) == NOW


@given(SPANS, SPANS, DRAWS)
def test_a_clock_that_is_behind_makes_the_time_no_longer_than_it_was(
    span: timedelta, behind: timedelta, draw: float
) -> None:
    renew_by = NOW + behind + span
    due = spread(NOW, renew_by, draw, ordered_at=NOW + behind)
    assert due == spread(NOW, NOW + span, draw), "as spread out as with a right clock"


@given(SPANS, SPANS, DRAWS)
def test_an_order_that_is_heard_late_is_followed_in_the_time_that_is_left(
    late: timedelta, left: timedelta, draw: float
) -> None:
    assert spread(NOW, NOW + left, draw, ordered_at=NOW - late) == spread(NOW, NOW + left, draw)


@given(SPANS, DRAWS)
def test_an_order_that_is_at_odds_with_itself_is_followed_now(odd: timedelta, draw: float) -> None:
    assert spread(NOW, NOW + odd, draw, ordered_at=NOW + 2 * odd) == NOW


def test_draws_spread() -> None:
    times = {renewal_time(NOW, NOW + timedelta(days=90), draw / 10) for draw in range(10)}
    assert len(times) == 10
