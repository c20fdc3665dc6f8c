"""Clocks: elapsed time, and the CPU time of this process or of others."""

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

import psutil


@dataclass(frozen=True)
class Cost:
    """What a number of equal things took. All durations are in seconds."""

    count: int
    elapsed_s: float
    cpu_s: float

    @property
    def per_second(self) -> float:
        return self.count / self.elapsed_s

    @property
    def per_cpu_second(self) -> float:
        return self.count / self.cpu_s

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of one."""
        return 1000 * self.cpu_s / self.count


class Stopwatch:
    """Time and CPU time of this process, all of its threads, from its making on."""

    def __init__(self) -> None:
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def cost(self, count: int) -> Cost:
        """What `count` things have taken since."""
        return Cost(count, time.perf_counter() - self._began, time.process_time() - self._cpu)


@dataclass(frozen=True)
class CpuMark:
    """How much CPU time some processes had used at a moment."""

    used_s: float
    _processes: tuple[psutil.Process, ...]

    @classmethod
    def now(cls, pids: Iterable[int]) -> Self:
        """Of these processes."""
        return cls._of([psutil.Process(pid) for pid in pids])

    @classmethod
    def of_children(cls) -> Self:
        """Of all processes below this one that run now."""
        return cls._of(psutil.Process().children(recursive=True))

    @classmethod
    def _of(cls, processes: Sequence[psutil.Process]) -> Self:
        return cls(sum(map(_used_s, processes)), tuple(processes))

    def since(self) -> float:
        """CPU seconds that they have used since then."""
        return sum(map(_used_s, self._processes)) - self.used_s


def least_disturbed(costs: Sequence[Cost]) -> Cost:
    """The round that cost least CPU: what other programs do to caches and clock can only add."""
    return max(costs, key=lambda cost: cost.per_cpu_second)


def percentile(values: Sequence[float], part: float) -> float:
    """The value below which `part` (0 … 1) of the values lie."""
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def middle(values: Iterable[float]) -> float:
    """The median."""
    return float(median(values))


def say(text: str) -> None:
    """Progress, for whoever waits."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def _used_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
