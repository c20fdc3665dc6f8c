"""A home has one service at a time."""

import asyncio
from pathlib import Path

import pytest

from broker.adapters.run_lock import AlreadyRunning, held, held_against_looks, is_held


def test_the_second_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(AlreadyRunning), held(tmp_path / "lock"):
        pass
    with held(tmp_path / "lock"):  # whoever comes after the first has ended is let in
        pass


def test_it_is_seen_from_outside_and_looking_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert is_held(path) is False
    assert not path.exists()
    with held(path):
        assert is_held(path) is True
    assert is_held(path) is False
    with held(path):
        pass
    assert is_held(path / "no-folder") is None


async def test_a_look_keeps_no_service_from_starting(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path):  # as long as a look, and a little longer
        starting = asyncio.create_task(_started(path))
        await asyncio.sleep(0)
        assert not starting.done()
    assert await starting
    assert is_held(path) is False


async def test_a_service_that_stays_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path), pytest.raises(AlreadyRunning):
        await _started(path)


async def _started(path: Path) -> bool | None:
    async with held_against_looks(path):
        return is_held(path)
