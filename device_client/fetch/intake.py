"""What every source pours into: no more than the signed length, in the budget, at the rate."""

import asyncio
from collections.abc import Callable
from time import monotonic

from broker.protocol.updates import AssignedTarget
from device_client.fetch.errors import ImageTooLong, ImageTooSlow
from device_client.fetch.limits import FetchLimits
from device_client.fetch.sink import Sink


class Intake:
    """Leads an image's bytes into its sink."""

    def __init__(self, target: AssignedTarget, sink: Sink, limits: FetchLimits) -> None:
        self._length = target.length
        self._sink = sink
        self._rate = limits.rate
        self._budget = limits.budget
        self._free_at = 0.0
        self.received = 0
        """Bytes that came, those that were thrown away later too."""

    @property
    def position(self) -> int:
        """How many bytes the sink has."""
        return self._sink.position

    @property
    def left(self) -> int:
        """How many it lacks."""
        return self._length - self._sink.position

    def room(self, most: int) -> int:
        """How many bytes to take next, at least 1 and at most `most`.

        Raises:
            ImageBudgetSpent: none, today.
        """
        if self._budget is None:
            return most
        self._budget.check()
        return max(1, min(most, self._budget.left))

    async def take(self, data: bytes) -> None:
        """Writes the next bytes, and waits as the rate wants it.

        Raises:
            ImageTooLong: they're more than the image has; nothing of them was written.
        """
        self.received += len(data)
        if self._budget is not None:
            await self._budget.spend(len(data))
        if len(data) > self.left:
            raise ImageTooLong(
                f"The source has more than the {self._length} bytes that are signed.",
                "Another source is tried; the operator looks at what this one serves.",
            )
        await self._sink.write(data)
        await self._wait_for_rate(len(data))

    async def restart(self) -> None:
        """Begins again at the first byte."""
        await self._sink.restart()

    async def _wait_for_rate(self, count: int) -> None:
        if self._rate is None:
            return
        now = monotonic()
        self._free_at = max(self._free_at, now - 1.0) + count / self._rate
        await asyncio.sleep(max(0.0, self._free_at - now))


class Pace:
    """How fast a source sends, over all attempts with it, counted while it's waited for.

    Time that this device takes itself, to write or to keep to its own rate, isn't the source's.
    """

    def __init__(self, limits: FetchLimits, clock: Callable[[], float] = monotonic) -> None:
        self._window_s = limits.slow_window_s
        self._least_rate = limits.least_rate
        self._clock = clock
        self._waited_s = 0.0
        self._got = 0
        self._since = clock()

    def begin(self) -> None:
        """From now on it's waited for."""
        self._since = self._clock()

    def got(self, count: int) -> None:
        """It sent so many bytes, or none in all that time.

        Raises:
            ImageTooSlow: the average of a whole window is below the least rate.
        """
        self._waited_s += self._clock() - self._since
        self._got += count
        if self._waited_s < self._window_s:
            return
        rate = self._got / self._waited_s
        self._waited_s, self._got = 0.0, 0
        if rate < self._least_rate:
            raise ImageTooSlow(
                f"The source sends {rate:.0f} bytes a second where {self._least_rate:g} are least.",
                "Another source is tried; check the device's connection if all are slow.",
            )
