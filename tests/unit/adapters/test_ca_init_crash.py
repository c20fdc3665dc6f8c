"""A process that dies while it makes a home, at any step."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.ca.inspect import inspect_home
from broker.core.findings import Level
from tests.unit.adapters.ca_homes import NOW, make_home

# Each step of making `{folder}/{step}` is killed. Prints how many steps there are.
DYING = """
import sys
from datetime import datetime
from pathlib import Path
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from tests.support.dying_calls import at_every_step

folder, now = Path(sys.argv[1]), datetime.fromisoformat(sys.argv[2])
print(at_every_step(
    ("mkdir", "fsync", "rename", "chmod"),
    lambda step: create_home(
        MusterHome(folder / str(step) / "home"), hosts=[], passphrase=None, now=now
    ),
))
"""


def is_whole(home: MusterHome) -> bool:
    return all(finding.level is Level.OK for finding in inspect_home(home, NOW))


def test_a_kill_leaves_nothing_or_a_whole_home(tmp_path: Path) -> None:
    for step in range(1, 200):
        (tmp_path / str(step)).mkdir()
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path), NOW.isoformat()],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    homes = [MusterHome(tmp_path / str(step) / "home") for step in range(1, steps + 1)]
    made = [home for home in homes if home.path.exists()]
    # After the rename, one step is left: making it durable.
    assert made == homes[-1:]
    assert is_whole(made[0])
    assert steps > 30


def test_after_a_kill_one_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(source: Path, target: Path) -> None:
        raise Killed

    monkeypatch.setattr(os, "rename", kill)
    monkeypatch.setattr("shutil.rmtree", lambda *args, **options: None)
    home = MusterHome(tmp_path / "home")
    with pytest.raises(Killed):
        create_home(home, hosts=[], passphrase=None, now=NOW)
    assert not home.path.exists()
    (draft,) = tmp_path.iterdir()
    monkeypatch.undo()
    make_home(tmp_path)
    assert is_whole(home)
    assert is_whole(MusterHome(draft)), "what was left is nobody's, so it stays"


def test_everything_is_durable_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[Path] = []
    before: set[Path] = set()
    fsync, rename = os.fsync, os.rename

    def watch(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    def check(source: Path, target: Path) -> None:
        before.update(synced)
        assert {source, *source.rglob("*")} <= before
        rename(source, target)

    monkeypatch.setattr(os, "fsync", watch)
    monkeypatch.setattr(os, "rename", check)
    make_home(tmp_path)
    assert before, "the home wasn't renamed into its place"
    assert synced[-1] == tmp_path
