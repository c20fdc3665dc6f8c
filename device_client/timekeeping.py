"""What time it is, for a device whose clock may be wrong (docs/adr/0013).

Two things are kept apart: the *floor*, before which it certainly isn't, and the best guess. Only
what an authority of ours signed raises the floor; only a certificate that was made at our request
corrects a clock that is ahead. The clock alone proves nothing.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Final

from broker.protocol import codec
from broker.protocol.codes import Refused
from device_client import durable

log = logging.getLogger(__name__)

CLOCK_FILE: Final = "clock.json"
"""In the state directory."""
RELEASED: Final = datetime(2026, 1, 1, tzinfo=UTC)
"""This program is no older; raised with releases. Tests and installations begin after it."""
_LATEST: Final = RELEASED + timedelta(days=36_525)
"""No authority of ours lives so long. And what is near the calendar's end can't be added to."""
_WORTH_WRITING: Final = timedelta(days=1)
"""Flash wears out: the floor on the disk may be so far behind."""
_TOLERANCE: Final = timedelta(minutes=5)


class Standing(StrEnum):
    """What this device thinks of its clock."""

    BELIEVED = "believed"
    BEHIND = "behind"
    """It reads less than what is proven; the floor is used in its place."""
    AHEAD = "ahead"
    """It was proven to be ahead, and by how much; it's used with that correction."""


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a clock that is ahead read, and what the time was."""

    read: datetime
    actual: datetime


@dataclass(frozen=True, kw_only=True)
class _Record:
    floor: datetime
    correction: Correction | None = None


class Timekeeper:
    """The device's only source of the time. All but `load` and `save` are free of I/O."""

    def __init__(
        self,
        file: Path,
        clock: Callable[[], datetime],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        """`file` outlives restarts; `clock` reads the time in UTC, `elapsed` seconds."""
        self._file = file
        self._clock = clock
        self._elapsed = elapsed
        self._floor = RELEASED
        self._floor_at_s = elapsed()
        self._correction: Correction | None = None
        self._saved = _Record(floor=RELEASED)
        self._is_loaded = False

    def load(self) -> None:
        """Takes up, once, what an earlier run knew; a damaged file is none."""
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            self._saved = codec.decode(self._file.read_bytes(), _Record)
        except (OSError, Refused):
            return
        self.not_before(self._saved.floor)
        self._correction = self._saved.correction

    def save(self) -> None:
        """Keeps what would be missed after a restart."""
        record = _Record(floor=self.floor(), correction=self._correction)
        is_same = record.correction == self._saved.correction
        if is_same and record.floor - self._saved.floor < _WORTH_WRITING:
            return
        durable.replace_file(self._file, codec.encode(record))
        self._saved = record

    def reading(self) -> datetime:
        """What the clock says, right or wrong."""
        return self._clock()

    def floor(self) -> datetime:
        """It isn't earlier than this. It goes on by itself while the program runs."""
        return self._floor + timedelta(seconds=self._elapsed() - self._floor_at_s)

    def now(self) -> datetime:
        """The best guess; never before the floor."""
        reading, correction = self._clock(), self._correction
        if correction is not None:
            if reading >= correction.read - _TOLERANCE:
                reading -= correction.read - correction.actual
            else:
                log.info("the clock was set")
                self._correction = None
        return max(reading, self.floor())

    def standing(self) -> Standing:
        """What to think of the clock now."""
        now = self.now()
        if self._correction is not None:
            return Standing.AHEAD
        return Standing.BEHIND if now > self._clock() else Standing.BELIEVED

    def not_before(self, moment: datetime) -> None:
        """An authority that we trust signed something at `moment` or later."""
        if self.floor() < moment < _LATEST:
            self._floor, self._floor_at_s = moment, self._elapsed()

    def proven(self, moment: datetime) -> None:
        """It's `moment` now, or little later; corrects a clock that is ahead of it."""
        self.not_before(moment)
        reading = self._clock()
        self._correction = None
        if reading > moment:
            log.warning("the clock is ahead: it's about %s, not %s", moment, reading)
            self._correction = Correction(read=reading, actual=moment)
