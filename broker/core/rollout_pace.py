"""How fast a rollout goes, and when it must stop: by what devices have reported, never by what was
sent.
"""

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

_BURST_S: Final = 10.0
"""So many seconds' worth may be told at once; else each tick's rounding would slow the pace."""
EVERYBODY: Final = 100.0


@dataclass(frozen=True)
class Pace:
    """Waves, and a rate within them."""

    per_minute: int | None = None
    percent: tuple[float, ...] = (EVERYBODY,)
    """The part of all devices that has been told when each wave is complete; rises to 100."""
    wave_size: int | None = None
    """Devices a wave, in place of `percent`."""

    def __post_init__(self) -> None:
        if self.per_minute is not None and self.per_minute < 1:
            raise ValueError("a rate is at least 1 a minute")
        if self.wave_size is not None and self.wave_size < 1:
            raise ValueError("a wave has at least 1 device")
        rises = all(a < b for a, b in zip(self.percent, self.percent[1:], strict=False))
        if not self.percent or not rises or self.percent[0] <= 0 or self.percent[-1] != EVERYBODY:
            raise ValueError("percentages rise from above 0 to 100, such as 1,10,100")

    def waves(self, total: int) -> int:
        """How many waves `total` devices make; at least one."""
        if self.wave_size is not None:
            return max(1, math.ceil(total / self.wave_size))
        return len(self.percent)

    def limit(self, wave: int, total: int) -> int:
        """How many of `total` devices may have been told by the end of `wave`."""
        if self.wave_size is not None:
            return min(total, self.wave_size * (wave + 1))
        if wave >= len(self.percent):
            return total
        return math.ceil(total * self.percent[wave] / EVERYBODY)


@dataclass(frozen=True)
class StopRule:
    """When too many of those who have finished have failed."""

    above: float = 0.05
    """The share that may fail, 0 to 1; 1 never stops."""
    after: int = 20
    """Nothing is concluded from fewer, unless a wave has no more. So the defaults bear one failure,
    whenever it comes."""

    def __post_init__(self) -> None:
        if not 0 <= self.above <= 1:
            raise ValueError("a share lies between 0 and 100 %")
        if self.after < 1:
            raise ValueError("at least 1 device must have finished")

    @property
    def percent(self) -> str:
        """`above` for people."""
        return f"{100 * self.above:g}%"

    def is_broken(self, failed: int, finished: int, expected: int) -> bool:
        """Whether to stop.

        Args:
            failed: how many have rolled back or refused.
            finished: how many have reported an end, the failed ones among them.
            expected: how many there can be at all.
        """
        enough = finished >= max(1, min(self.after, expected))
        return enough and failed > self.above * finished


@dataclass(frozen=True)
class Bucket:
    """What the rate allows at this moment."""

    tokens: float
    at: datetime


def refilled(pace: Pace, bucket: Bucket | None, now: datetime) -> Bucket:
    """What may be told at `now`; a clock that was set back gives nothing extra."""
    if pace.per_minute is None:
        return Bucket(math.inf, now)
    most = max(1.0, pace.per_minute * _BURST_S / 60)
    if bucket is None:
        return Bucket(1.0, now)
    passed_s = max(0.0, (now - bucket.at).total_seconds())
    return Bucket(min(most, bucket.tokens + passed_s * pace.per_minute / 60), now)


def may_open_next(in_flight: int, silent: int, installed: int) -> bool:
    """Whether the next wave may begin, once all of this one have been told.

    Devices that have said nothing for long aren't waited for, else one that is switched off would
    hold up the fleet; but somebody must have shown that the image works.

    Args:
        in_flight: devices that were told and haven't finished.
        silent: those of them that aren't waited for.
        installed: devices that have reported success.
    """
    return in_flight <= silent and (installed > 0 or in_flight == 0)
