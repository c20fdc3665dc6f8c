"""Durations as people write them: `90d`, `12h`, `15m`, `30s`."""

import re
from datetime import timedelta

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_FORM = re.compile(r"^([1-9][0-9]{0,6})([smhdw])\Z")


def parse_duration(text: str) -> timedelta:
    """The duration that `text` says: a whole number above 0 and one of s, m, h, d, w.

    Raises:
        ValueError: it says something else; the message names the form.
    """
    found = _FORM.match(text.strip())
    if found is None:
        raise ValueError(f"{text!r} isn't a duration; write for example 90d, 12h, 15m or 30s")
    return timedelta(**{_UNITS[found[2]]: int(found[1])})


def format_duration(duration: timedelta) -> str:
    """The shortest text that `parse_duration` reads back as `duration` (whole seconds)."""
    seconds = int(duration.total_seconds())
    for unit, size in (("w", 604_800), ("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds and seconds % size == 0:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"
