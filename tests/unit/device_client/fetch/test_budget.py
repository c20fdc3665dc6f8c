"""How many bytes in a day, and how fast."""

import asyncio
import errno
import threading
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import pytest

from device_client import durable
from device_client.fetch import intake
from device_client.fetch.budget import DailyBudget
from device_client.fetch.errors import ImageBudgetSpent, ImageTooSlow
from device_client.fetch.intake import Intake, Pace
from device_client.fetch.plan import fetch
from tests.support.hostile_http import honest, hostile
from tests.support.sinks import MemorySink, quick, target_of

IMAGE = bytes(range(256)) * 1000


class Calendar:
    def __init__(self) -> None:
        self.day = date(2026, 3, 1)

    def __call__(self) -> date:
        return self.day


async def test_a_budget_is_kept_to_the_byte_and_renewed_each_day(tmp_path: Path) -> None:
    calendar, sink, file = Calendar(), MemorySink(), tmp_path / "budget"
    days = 0
    async with hostile(honest(IMAGE)) as server:
        target = target_of(IMAGE, server.url)
        while sink.position < len(IMAGE):
            # Made anew each time, as after a restart of the device.
            limits = quick(budget=DailyBudget(100_000, file, calendar))
            with pytest.raises(ImageBudgetSpent) if days < 2 else nullcontext():
                await fetch(target, sink, None, limits, "")
            days += 1
            if days < 3:
                assert sink.position == days * 100_000
                spent = DailyBudget(100_000, file, calendar)
                assert spent.left == 0
                with pytest.raises(ImageBudgetSpent):
                    await fetch(target, sink, None, quick(budget=spent), "")
            calendar.day = date(2026, 3, 1 + days)
    assert (bytes(sink.data), days) == (IMAGE, 3)


@pytest.mark.parametrize("content", ["", "x", "2026-03-01", "2026-03-01 many", "\xff", "1 2 3"])
def test_a_damaged_count_counts_as_none(tmp_path: Path, content: str) -> None:
    file = tmp_path / "budget"
    file.write_text(content, encoding="latin-1")
    assert DailyBudget(10, file, Calendar()).left == 10


async def test_another_day_begins_with_all_of_it(tmp_path: Path) -> None:
    calendar = Calendar()
    budget = DailyBudget(10, tmp_path / "budget", calendar)
    await budget.spend(12)
    assert budget.left == 0
    calendar.day = date(2026, 3, 2)
    assert budget.left == 10


async def test_a_budget_that_grows_is_the_day_s_largest(tmp_path: Path) -> None:
    calendar, file = Calendar(), tmp_path / "budget"

    def of_images(length: int) -> DailyBudget:
        return DailyBudget(8 * length, file, calendar, grows=True)

    large = of_images(100)
    await large.spend(790)
    await large.keep()
    assert of_images(1).left == 10, "a small image that follows large ones is fetched, too"
    assert DailyBudget(8, file, calendar).left == 0, "the maker's number is that"
    calendar.day = date(2026, 3, 2)
    assert of_images(1).left == 8


class SlowDisk:
    """Holds the first write back; what a second one does meanwhile would spoil it."""

    def __init__(self) -> None:
        self.begun, self.goes_on = threading.Event(), threading.Event()
        self.error: OSError | None = None
        self._real = durable.replace_file

    def replace_file(self, path: Path, content: bytes) -> None:
        """As `durable`'s."""
        self.begun.set()
        assert self.goes_on.wait(60)
        if self.error is not None:
            raise self.error
        self._real(path, content)


@pytest.mark.parametrize("error", [None, OSError(errno.ENOSPC, "full")])
async def test_a_fetch_that_is_called_off_while_the_count_is_written_is_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    """Nothing that the disk says takes the cancellation's place: the image was called back."""
    disk = SlowDisk()
    disk.error = error
    monkeypatch.setattr(durable, "replace_file", disk.replace_file)
    large = bytes(3 << 20)
    async with hostile(honest(large)) as server:
        limits = quick(budget=DailyBudget(1 << 30, tmp_path / "budget"))
        fetching = asyncio.create_task(
            fetch(target_of(large, server.url), MemorySink(), None, limits, "")
        )
        await asyncio.to_thread(disk.begun.wait, 60)
        fetching.cancel()
        disk.goes_on.set()
        with pytest.raises(asyncio.CancelledError):
            await fetching


async def test_the_rate_is_kept_on_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(intake, "monotonic", lambda: now[0])
    monkeypatch.setattr("device_client.fetch.intake.asyncio.sleep", sleep)
    limited = Intake(target_of(IMAGE), MemorySink(), quick(rate=1000.0))
    for _ in range(100):
        await limited.take(b"x" * 500)
    assert 48.0 <= now[0] - 1000.0 <= 51.0


def test_the_device_s_own_time_isn_t_the_source_s() -> None:
    now = [0.0]
    pace = Pace(quick(slow_window_s=10.0, least_rate=100.0), lambda: now[0])
    for _ in range(20):
        pace.begin()
        now[0] += 1.0
        pace.got(100)
        now[0] += 100.0


def test_a_source_below_the_least_rate_is_too_slow() -> None:
    now = [0.0]
    pace = Pace(quick(slow_window_s=10.0, least_rate=100.0), lambda: now[0])
    for count, seconds in ((500, 5.0), (500, 5.0), (999, 9.99)):
        pace.begin()
        now[0] += seconds
        pace.got(count)
    pace.begin()
    now[0] += 0.02
    with pytest.raises(ImageTooSlow):
        pace.got(0)
