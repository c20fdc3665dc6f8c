"""The bell at which the service waits for commands."""

import asyncio
import os
import stat
import time
from pathlib import Path

from broker.adapters.doorbell import Doorbell, ring

LONG_S = 60.0


def test_who_waits_is_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with Doorbell(path) as bell:
        began = time.monotonic()
        ring(path)
        bell.wait(LONG_S)
        assert time.monotonic() - began < LONG_S / 2
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_ring_ends_a_wait_that_has_begun(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    with Doorbell(path) as bell:
        waiting = asyncio.create_task(asyncio.to_thread(bell.wait, LONG_S))
        await asyncio.sleep(0)
        ring(path)
        async with asyncio.timeout(LONG_S / 2):
            await waiting


def test_many_rings_are_one(tmp_path: Path) -> None:
    """Nor does anybody wait because it's full."""
    path = tmp_path / "bell"
    with Doorbell(path) as bell:
        for _ in range(70_000):
            ring(path)
        bell.wait(LONG_S)
        while not _is_quiet(bell):
            pass


def _is_quiet(bell: Doorbell) -> bool:
    began = time.monotonic()
    bell.wait(0.01)
    return time.monotonic() - began >= 0.01


def test_nobody_waits(tmp_path: Path) -> None:
    path = tmp_path / "bell"
    ring(path)
    with Doorbell(path):
        pass
    ring(path)


def test_what_lies_there_is_replaced_by_the_service_and_left_alone_by_commands(
    tmp_path: Path,
) -> None:
    path = tmp_path / "bell"
    path.write_text("somebody's")
    ring(path)
    assert path.read_text() == "somebody's"
    with Doorbell(path) as bell:
        ring(path)
        bell.wait(LONG_S)


def test_a_link_to_elsewhere_is_not_followed(tmp_path: Path) -> None:
    path, other = tmp_path / "bell", tmp_path / "other"
    os.mkfifo(other)
    path.symlink_to(other)
    with Doorbell(path) as bell:
        ring(path)
        bell.wait(LONG_S)
    assert not path.is_symlink()
