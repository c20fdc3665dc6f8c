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


def test_draws_spread() -> None:
    times = {renewal_time(NOW, NOW + timedelta(days=90), draw / 10) for draw in range(10)}
    assert len(times) == 10
