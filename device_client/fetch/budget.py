"""How many bytes may be fetched in a day, over restarts of the device."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final

from device_client import durable
from device_client.fetch.errors import ImageBudgetSpent
from device_client.finishing import to_its_end

_KEEP_EVERY: Final = 1 << 20
"""Bytes between two writes of the file: a power cut forgets at most so many."""


def _today() -> date:
    return datetime.now(UTC).date()


class DailyBudget:
    """Counts the bytes of a day, in UTC; those of an image that is thrown away count, too."""

    def __init__(
        self,
        per_day: int,
        file: Path | None = None,
        today: Callable[[], date] = _today,
        *,
        grows: bool = False,
    ) -> None:
        """`file` keeps the count over restarts; a damaged one counts as none. With `grows`, the
        largest budget of the day counts: the small image that follows large ones is fetched, too.
        """
        self._least = self._per_day = per_day
        self._file = file
        self._today = today
        self._day, self._spent, before = _read(file) or (today(), 0, 0)
        if grows:
            self._per_day = max(per_day, before)
        self._kept = (self._day, self._spent)

    @property
    def left(self) -> int:
        """The bytes that may still be fetched today."""
        self._turn_page()
        return max(0, self._per_day - self._spent)

    def check(self) -> None:
        """Raises ImageBudgetSpent when nothing is left."""
        if not self.left:
            raise ImageBudgetSpent(
                f"The {self._per_day} bytes that may be fetched in a day are spent.",
                "It goes on tomorrow; a larger budget is a setting of the device.",
            )

    async def spend(self, count: int) -> None:
        """Counts bytes that have been received; writes the count down now and then.

        Raises:
            OSError: it can't be written.
        """
        self._turn_page()
        self._spent += count
        kept_day, kept = self._kept
        if self._day != kept_day or self._spent - kept >= _KEEP_EVERY:
            await self.keep()

    async def keep(self) -> None:
        """Writes the count down, if it has changed.

        Raises:
            OSError: it can't be written.
        """
        day, spent = count = self._day, self._spent
        if self._file is not None and self._kept != count:
            text = f"{day} {spent} {self._per_day}\n"
            await to_its_end(asyncio.to_thread(durable.replace_file, self._file, text.encode()))
        self._kept = count

    def _turn_page(self) -> None:
        if (today := self._today()) != self._day:
            self._day, self._spent, self._per_day = today, 0, self._least


def _read(file: Path | None) -> tuple[date, int, int] | None:
    """The day, the bytes that were fetched in it, and how many were allowed."""
    with contextlib.suppress(OSError, ValueError):
        if file is not None:
            day, spent, *most = file.read_text(encoding="ascii")[:96].split()
            return date.fromisoformat(day), max(0, int(spent)), int(most[0]) if most else 0
    return None
