"""Work that is due every so often, for as long as the service runs."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

_log = structlog.get_logger(__name__)

_LONGEST_PAUSE_S = 60.0


@dataclass(frozen=True)
class Chore:
    """One kind of work; a run that fails is tried again, ever less often."""

    name: str
    every_s: float
    work: Callable[[], Awaitable[object]]
    says_more: bool = False
    """Whether True from `work` says that there is more to do. Then only `least_s` is waited for."""
    timeout_s: float = 60.0
    longest_pause_s: float = _LONGEST_PAUSE_S
    """Between two tries while it fails."""
    wake: asyncio.Event | None = None
    """Set by whoever has made work for it that shouldn't wait; heeded while it doesn't fail."""
    least_s: float = 0.0
    """Between two runs, whoever wakes it."""

    async def keep_doing(self) -> None:
        """Works and pauses until cancelled; a failure is logged once until it succeeds again."""
        pause, is_failing = self.every_s, False
        while True:
            try:
                async with asyncio.timeout(self.timeout_s):
                    has_more = await self.work() is True and self.says_more
                pause, is_failing = self.least_s if has_more else self.every_s, False
            except Exception as error:
                if not is_failing:
                    self._tell(error)
                pause, is_failing = min(pause * 2, self.longest_pause_s), True
            await self._rest(pause, is_failing)

    def _tell(self, error: Exception) -> None:
        remedy = getattr(error, "remedy", None)
        told = str(error) or repr(error)
        # What nobody foresaw has no remedy: whoever looks for it has to know where it was.
        trace = error if remedy is None else None
        _log.error("chore_failed", chore=self.name, error=told, remedy=remedy, exc_info=trace)

    async def _rest(self, pause: float, is_failing: bool) -> None:
        if self.wake is None or is_failing or pause <= self.least_s:
            await asyncio.sleep(pause)
            return
        try:
            async with asyncio.timeout(pause):
                await asyncio.sleep(self.least_s)
                await self.wake.wait()
        except TimeoutError:
            pass
        # What is asked for from now on wakes it again: it hasn't begun to look yet.
        self.wake.clear()
