"""Calendar time as the databases keep it: microseconds since 1970-01-01 UTC, in an integer.

An integer compares and indexes alike in every database and knows no time zone to get wrong.
"""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def stored(moment: datetime) -> int:
    """`moment` as the registry keeps it.

    Raises:
        TypeError: `moment` has no time zone.
    """
    return (moment - _EPOCH) // _MICROSECOND


def stored_or_none(moment: datetime | None) -> int | None:
    """As `stored`; none stays none."""
    return None if moment is None else stored(moment)


def loaded(microseconds: int) -> datetime:
    """The moment that `stored` made `microseconds` of; always aware, in UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def loaded_or_none(microseconds: int | None) -> datetime | None:
    """As `loaded`; none stays none."""
    return None if microseconds is None else loaded(microseconds)
