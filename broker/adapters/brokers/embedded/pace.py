"""How fast packets are taken: who comes sooner isn't read until its turn has come."""

import asyncio
from typing import Final

from broker.adapters.brokers.embedded.errors import Ended, Ending

_ROUNDED_S: Final = 1e-6
"""What adding up fractions may be wrong by; nobody waits for so little."""


class Pace:
    """`burst` turns at once, then so many a second (the generic cell rate algorithm). No I/O."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._each_s = 1.0 / per_second
        self._burst_s = burst / per_second
        self._due = float("-inf")

    def take(self, turns: int, now: float) -> float:
        """Takes so many turns; how many seconds until the last of them has come.

        Who takes a turn and waits for it holds others up by that one turn only.

        Args:
            turns: how many, at least one.
            now: monotonic time in seconds.
        """
        self._due = max(self._due, now - self._burst_s) + turns * self._each_s
        wait_s = self._due - now
        return wait_s if wait_s > _ROUNDED_S else 0.0


class Throttle:
    """Holds one connection to a pace of its own, and to that of all connections of its name."""

    def __init__(self, own: Pace, shared: Pace, max_slowed: int) -> None:
        self._own = own
        self._shared = shared
        self._max_slowed = max_slowed
        self._slowed = 0

    async def turn(self, turns: int) -> None:
        """Returns when the next packet, which counts as so many, may be taken.

        Raises:
            Ended: FLOODING, when more than `max_slowed` in a row came too fast.
        """
        now = asyncio.get_running_loop().time()
        late_s = self._own.take(turns, now)
        self._slowed = self._slowed + 1 if late_s else 0
        if self._slowed > self._max_slowed:
            raise Ended(Ending.FLOODING, f"{self._slowed} packets in a row that came too fast")
        wait_s = max(late_s, self._shared.take(turns, now))
        if wait_s:
            await asyncio.sleep(wait_s)
