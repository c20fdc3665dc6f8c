"""A home has one service at a time."""

from pathlib import Path

import pytest

from broker.adapters.run_lock import AlreadyRunning, held


def test_the_second_is_told(tmp_path: Path) -> None:
    with held(tmp_path / "lock"), pytest.raises(AlreadyRunning), held(tmp_path / "lock"):
        pass
    with held(tmp_path / "lock"):  # whoever comes after the first has ended is let in
        pass
