"""A home has one service at a time."""

from pathlib import Path

import pytest

from broker.adapters.run_lock import AlreadyRunning, held, is_held


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
