"""Waking chores when something has changed, so that a service with nothing to do does nothing."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from broker.entry.housekeeping import Chore

_EVERY_S: Final = 0.1
_LEAST_S: Final = 0.01
"""Between two looks, however often somebody rings."""
_LONGEST_PAUSE_S: Final = 5.0
"""While nobody can say whether anything has changed."""


class Changes:
    """Looks several times a second at what is cheap to look at, and wakes all when it's different.

    In a thread of its own, so that the event loop sleeps on when there is nothing new.

    Args:
        look: another value after each change; it may block. While it fails all are woken, ever less
            often: each finds out by itself what is wrong, and says so.
        rest: returns after so many seconds, or sooner if it's worth a look; it may block.
    """

    def __init__(
        self, look: Callable[[], Hashable], rest: Callable[[float], object] = time.sleep
    ) -> None:
        self._look = look
        self._rest = rest
        self._wakes: list[asyncio.Event] = []

    def wake(self) -> asyncio.Event:
        """An event of its own for one chore, set after each change."""
        event = asyncio.Event()
        self._wakes.append(event)
        return event

    def chore(
        self,
        name: str,
        work: Callable[[], Awaitable[object]],
        *,
        least_s: float,
        every_s: float,
        longest_pause_s: float = 5.0,
        says_more: bool = False,
    ) -> Chore:
        """One that is done after a change, at the earliest `least_s` after the last time; and every
        `every_s`. `longest_pause_s` is between two tries while it fails."""
        return Chore(
            name,
            every_s,
            work,
            says_more=says_more,
            longest_pause_s=longest_pause_s,
            wake=self.wake(),
            least_s=least_s,
        )

    async def keep_looking(self) -> None:
        """Looks until cancelled."""
        loop, is_over = asyncio.get_running_loop(), threading.Event()

        def tell() -> None:
            loop.call_soon_threadsafe(self._wake_all)

        with ThreadPoolExecutor(1, thread_name_prefix="changes") as thread:
            try:
                await loop.run_in_executor(thread, self._look_until, is_over, tell)
            finally:
                is_over.set()

    def _look_until(self, is_over: threading.Event, tell: Callable[[], None]) -> None:
        seen: Hashable = None
        pause = _EVERY_S
        while not is_over.is_set():
            try:
                found = self._look()
            except Exception:
                tell()
                pause = min(2 * pause, _LONGEST_PAUSE_S)
                is_over.wait(pause)
                continue
            if found != seen:
                tell()
            pause, seen = _EVERY_S, found
            is_over.wait(_LEAST_S)
            self._rest(_EVERY_S - _LEAST_S)

    def _wake_all(self) -> None:
        for event in self._wakes:
            event.set()
