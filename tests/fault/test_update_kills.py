"""Kill -9 of an updater at every step that changes its disk: in the download, at the switch, in the
trial, while it rolls back, and while it recovers from an earlier kill.

At once and in the end: one whole slot is selected, the counter isn't ahead of the commit, and there
is exactly one final report.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fault.dying_updater import DISK
from tests.support.slot_kinds import KINDS
from tests.support.updating import FACTORY

KILLED = -9


class Updaters:
    """The process that forks a device for each life."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def live(self, home: Path, step: str, *, well: bool, kind: str = "file") -> dict[str, Any]:
        """One life of the device in `home`."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"home": str(home), "kind": kind, "step": step, "well": well}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert isinstance(answer, dict)
        return answer


@pytest.fixture(scope="module")
def updaters() -> Iterator[Updaters]:
    """Ended with its input."""
    argv = [sys.executable, "-m", "tests.fault.dying_updater"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield Updaters(process)
        assert process.stdin is not None
        process.stdin.close()


def steps(seen: dict[str, int]) -> list[str]:
    """Each step of a life, by name and number."""
    return [f"{name}:{nth}" for name in DISK for nth in range(1, seen.get(name, 0) + 1)]


def device(tmp_path: Path, name: str, kind: str = "file") -> Path:
    """A device as it leaves the factory."""
    home = tmp_path / name / "update"
    home.parent.mkdir()
    KINDS[kind](home).flash()
    return home


def selected(home: Path, kind: str = "file") -> bytes | None:
    return KINDS[kind](home).selected()


def assert_done(home: Path, end: dict[str, Any], *, well: bool, kind: str = "file") -> None:
    assert end["status"] == 0
    assert selected(home, kind) == (KINDS[kind].image if well else FACTORY)
    assert end["counter"] == (2 if well else 1)
    expected = [1, "installed", None] if well else [1, "rolled_back", "health_failed"]
    assert end["finals"] == [expected]


both = pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])


@both
def test_kill_before_every_step(updaters: Updaters, tmp_path: Path, well: bool) -> None:
    whole = updaters.live(device(tmp_path, "whole"), "none:0", well=well)
    assert_done(tmp_path / "whole" / "update", whole, well=well)
    all_steps = steps(whole["seen"])
    assert len(all_steps) > 80, "downloads, journals, links and slots"
    for step in all_steps:
        home = device(tmp_path, step.replace(":", "-"))
        assert updaters.live(home, step, well=well)["status"] == KILLED, step
        assert selected(home) in (FACTORY, KINDS["file"].image), step
        assert_done(home, updaters.live(home, "none:0", well=well), well=well)


@both
@pytest.mark.parametrize("kind", ["archive", "programs", "rauc"])
def test_kill_before_steps_of_each_kind_of_slots(
    updaters: Updaters, tmp_path: Path, kind: str, well: bool
) -> None:
    """Every fourth one, of a commit and of a going back by turns: all are tried by power cuts. Here
    the machine stays on, and its programs die with the updater."""
    whole = updaters.live(device(tmp_path, "whole", kind), "none:0", well=well, kind=kind)
    assert_done(tmp_path / "whole" / "update", whole, well=well, kind=kind)
    all_steps = steps(whole["seen"])
    assert len(all_steps) > 80
    for step in all_steps[2 * well :: 4]:
        home = device(tmp_path, step.replace(":", "-"), kind)
        assert updaters.live(home, step, well=well, kind=kind)["status"] == KILLED, step
        assert selected(home, kind) in (FACTORY, KINDS[kind].image), step
        again = updaters.live(home, "none:0", well=well, kind=kind)
        assert_done(home, again, well=well, kind=kind)


@both
@pytest.mark.parametrize("first", ["symlink:2", "replace:10", "write:8"])
def test_kill_before_every_step_of_the_recovery(
    updaters: Updaters, tmp_path: Path, first: str, well: bool
) -> None:
    """Killed at the same point, then at each step of the next life."""
    trial = device(tmp_path, "trial")
    assert updaters.live(trial, first, well=well)["status"] == KILLED
    shutil.copytree(tmp_path / "trial", tmp_path / "killed", symlinks=True)
    recovery = steps(updaters.live(trial, "none:0", well=well)["seen"])
    assert recovery
    for step in recovery:
        home = tmp_path / step.replace(":", "-") / "update"
        shutil.copytree(tmp_path / "killed", home.parent, symlinks=True)
        assert updaters.live(home, step, well=well)["status"] == KILLED, step
        assert selected(home) in (FACTORY, KINDS["file"].image), step
        assert_done(home, updaters.live(home, "none:0", well=well), well=well)
