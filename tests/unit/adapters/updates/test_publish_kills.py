"""A publication that is killed at any step, or has no room on the disk: what clients read is the
old state or the new one, and the next try completes it."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tuf.ngclient import Updater

from broker.adapters.ca.home import MusterHome
from broker.adapters.updates.ceremonies import RootChange
from broker.adapters.updates.layout import consistent_name
from broker.adapters.updates.verification import FolderFetcher
from broker.operating.updating import update_repository
from broker.ports.updates import UpdateCode, UpdateError
from tests.support.update_workshop import Workshop, make_workshop

# Each step of publishing is killed in `{folder}/{step}`, a copy of `{folder}/home`. Prints how many
# steps there are.
DYING = """
import shutil, sys
from pathlib import Path
from broker.adapters.ca.home import MusterHome
from broker.operating.updating import update_desk
from tests.support.dying_calls import at_every_step

folder = Path(sys.argv[1])
steps = ("mkdir", "fsync", "rename", "replace", "link", "symlink", "unlink", "rmdir")
print(at_every_step(
    steps,
    act=lambda step: update_desk(MusterHome(folder / str(step)), None).publish(),
    prepare=lambda step: shutil.copytree(folder / "home", folder / str(step), symlinks=True),
))
"""


def stage_everything(folder: Path) -> Workshop:
    """A published repository with a staged change of all that can change: every key, an image
    more, an image less."""
    workshop = make_workshop(folder)
    gone = workshop.publish_image("1.0.0", b"old")
    workshop.add("2.0.0", b"new")
    workshop.desk.revoke(gone, "test")
    workshop.new_key("root-4")
    workshop.new_key("targets-9")
    change = RootChange(
        add_root=workshop.key_set(["root-4"], 1).keys,
        remove_root=[workshop.keyid("root-1")],
        add_targets=workshop.key_set(["targets-9"], 1).keys,
        remove_targets=[workshop.keyid("targets-1"), workshop.keyid("targets-2")],
        new_online=("snapshot", "timestamp", "director"),
    )
    workshop.desk.rotate_root(change, "ed25519")
    workshop.sign("root-1", "root-2", "root-4", "targets-9")
    return workshop


def read_all(home: Path, cache: Path, first: bytes) -> int:
    """The root's version that a client ends with that has only the first one; every target that
    it sees is there."""
    folder = home / "updates" / "repository"
    cache.mkdir()
    fetcher = FolderFetcher(folder / "metadata")
    client = Updater(str(cache), "https://muster.invalid/", fetcher=fetcher, bootstrap=first)
    client.refresh()
    root = client._trusted_set.root.version
    version = "2.0.0" if root == 2 else "1.0.0"
    target = client.get_targetinfo(f"meter/{version}/firmware-{version}.bin")
    assert target is not None
    file = folder / "targets" / consistent_name(target.path, target.hashes["sha256"])
    assert file.read_bytes() == (b"new" if root == 2 else b"old")
    return root


def publish_again(home: Path) -> None:
    desk = Workshop(MusterHome(home), home).desk
    if desk.staged():
        desk.publish()


def failure_of_publishing(home: Path) -> UpdateCode | None:
    try:
        Workshop(MusterHome(home), home).desk.publish()
    except UpdateError as error:
        return error.code
    return None


def assert_clean(home: Path) -> None:
    """Nothing of the old is left but the state that a client may be reading."""
    updates = home / "updates"
    assert not (updates / "staging").exists()
    assert len(list((updates / "keys").iterdir())) == 3
    assert len(list((updates / "repository" / "targets").rglob("*.bin"))) == 1
    states = {each.name for each in (updates / "repository").iterdir()}
    assert states <= {"metadata", "metadata.2", "metadata.3", "targets"}
    update_repository(MusterHome(home), None).sign_assignment("{}")


def test_a_kill_leaves_the_old_or_the_new(tmp_path: Path) -> None:
    workshop = stage_everything(tmp_path)
    first = workshop.first_root()
    done = subprocess.run(
        [sys.executable, "-c", DYING, str(tmp_path)], capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    steps = int(done.stdout)
    assert steps > 30
    versions = []
    for step in range(1, steps + 1):
        home = tmp_path / str(step)
        versions.append(read_all(home, tmp_path / f"cache-{step}", first))
        publish_again(home)
        assert read_all(home, tmp_path / f"later-{step}", first) == 2
        assert_clean(home)
    # Once it's in force it stays in force, and both happen.
    assert versions == sorted(versions)
    assert set(versions) == {1, 2}


def test_a_full_disk_leaves_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = stage_everything(tmp_path)
    first = workshop.first_root()
    real = os.fsync
    for step in range(1, 200):
        home = tmp_path / str(step)
        shutil.copytree(workshop.home.path, home, symlinks=True)
        left = [step]

        def full(descriptor: int, left: list[int] = left) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(descriptor)

        monkeypatch.setattr(os, "fsync", full)
        failed = failure_of_publishing(home)
        monkeypatch.undo()
        if failed is None:
            break
        assert failed is UpdateCode.FILE_UNWRITABLE
        read_all(home, tmp_path / f"cache-{step}", first)
        publish_again(home)
        assert read_all(home, tmp_path / f"later-{step}", first) == 2
        assert_clean(home)
    else:
        pytest.fail("it never came to an end")
    assert step > 10
