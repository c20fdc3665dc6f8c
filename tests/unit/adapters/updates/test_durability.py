"""A power cut: what the new state needs is on the disk before it's switched to."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.update_workshop import make_workshop


class Syncs:
    """In which order files and folders were made durable, and the state switched."""

    def __init__(self) -> None:
        self.synced: set[int] = set()
        self.unsynced_at_switches: list[list[Path]] = []
        self.after_switch: set[int] = set()

    def fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        def call(descriptor: int) -> None:
            real(descriptor)
            inode = os.fstat(descriptor).st_ino
            self.synced.add(inode)
            self.after_switch.add(inode)

        return call

    def replace(self, real: Callable[..., None]) -> Callable[..., None]:
        def call(source: Any, target: Any) -> None:
            # What gets a new name has to be synced anew: its folder.
            self.synced.discard(Path(target).parent.stat().st_ino)
            real(source, target)
            if Path(target).name == "metadata":
                unsynced = self._unsynced(Path(target).parent, Path(target))
                self.unsynced_at_switches.append(unsynced)
                self.after_switch.clear()

        return call

    def _unsynced(self, repository: Path, link: Path) -> list[Path]:
        needed = [*link.resolve().iterdir(), link.resolve()]
        needed += list((repository / "targets").rglob("*"))
        return [path for path in needed if path.stat().st_ino not in self.synced]


def test_nothing_is_switched_to_that_a_power_cut_could_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs = Syncs()
    monkeypatch.setattr(os, "fsync", syncs.fsync(os.fsync))
    monkeypatch.setattr(os, "replace", syncs.replace(os.replace))
    workshop = make_workshop(tmp_path)
    for version in ("1.0.0", "2.0.0"):
        workshop.add(version)
        workshop.sign("targets-1")
        workshop.desk.publish()
        assert workshop.repository.stat().st_ino in syncs.after_switch
    assert syncs.unsynced_at_switches == [[], [], []]
