"""When to switch: not too early, in the hours that suit, and at the deadline whatever the hour."""

from datetime import UTC, datetime, time, timedelta

from device_client.update.journal import Work


def switch_time(work: Work, now: datetime) -> datetime:
    """The first moment from `now` on at which the work may switch; `now` if that's it."""
    earliest = max(now, work.not_before or now)
    if work.window is None:
        return earliest
    try:
        opening = _in_window(work.window, earliest)
    except OverflowError:  # at the calendar's end no window opens any more
        return earliest
    if work.deadline is not None and work.deadline < opening:
        return max(earliest, work.deadline)
    return opening


def _in_window(window: str, earliest: datetime) -> datetime:
    begin, end = (time.fromisoformat(part) for part in window.split("-"))
    earliest = earliest.astimezone(UTC)
    at = earliest.time()
    inside = begin <= at < end if begin < end else at >= begin or at < end
    if inside:
        return earliest
    opening = datetime.combine(earliest.date(), begin, UTC)
    return opening if opening > earliest else opening + timedelta(days=1)
