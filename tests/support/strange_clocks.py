"""Clocks that are wrong."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def reads(then: datetime) -> Clock:
    """A clock that reads `then` now, and goes on."""
    off = then - datetime.now(UTC)
    return lambda: datetime.now(UTC) + off


def since_1970() -> Clock:
    """No battery: it begins anew at every start."""
    return reads(datetime(1970, 1, 1, tzinfo=UTC))


def in_2100() -> Clock:
    """A battery that has gone mad."""
    return reads(datetime(2100, 1, 1, tzinfo=UTC))


def years_ahead(years: float) -> Clock:
    """Set by somebody who was wrong."""
    return reads(datetime.now(UTC) + timedelta(days=365 * years))
