"""Disks that are full or read-only from some step on, and later aren't: the update waits."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.updates import AssignedTarget, Phase
from device_client.errors import DeviceError
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.sink import FileSink
from tests.support.small_disk import small_disk
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = b"a better meter"
PATH = "meter/2.0.0/image"
LARGE = bytes(range(256)) * 8192
GROWING = ("write", "open", "mkdir", "replace", "rename", "symlink", "link")
"""What may need room: a block for content or for a directory's names, or a file's own entry."""
CHANGING = (*GROWING, "unlink", "rmdir")


class BadDisk:
    """Takes some steps, then none, and counts how often it was tried all the same."""

    def __init__(self, good: int, number: int) -> None:
        self.good = good
        self.refused = 0
        self._number = number

    def step(self) -> None:
        """One step is about to be done."""
        if self.good <= 0:
            self.refused += 1
            raise OSError(self._number, os.strerror(self._number))
        self.good -= 1


@contextmanager
def bad_disk(names: tuple[str, ...], good: int, number: int) -> Iterator[BadDisk]:
    disk = BadDisk(good, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _descriptor: None)
        for name in names:
            patch.setattr(os, name, refusing(disk, getattr(os, name), only_new=name == "open"))
        yield disk


def refusing(disk: BadDisk, real: Any, *, only_new: bool) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        if not only_new or args[1] & os.O_CREAT:
            disk.step()
        return real(*args, **options)

    return call


@pytest.fixture(scope="module")
def made() -> MadeRepository:
    made = MadeRepository()
    made.add(PATH, IMAGE)
    made.publish()
    return made


@pytest.fixture
def device(tmp_path: Path, made: MadeRepository) -> UpdatingDevice:
    return new_device(tmp_path / "update", made, well=True)


def new_device(home: Path, made: MadeRepository, *, well: bool) -> UpdatingDevice:
    flashed(home)
    device = UpdatingDevice(home, made, most_failures=10**6)
    if not well:
        device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
    return device


bad = pytest.mark.parametrize(
    ("names", "number"),
    [(GROWING, errno.ENOSPC), (CHANGING, errno.EROFS)],
    ids=["full", "read-only"],
)


@bad
@pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])
async def test_waits_at_each_step_and_goes_on(
    tmp_path: Path, made: MadeRepository, names: tuple[str, ...], number: int, well: bool
) -> None:
    payload = made.assign(made.add(PATH, IMAGE))
    plenty = 10**6
    with bad_disk(names, plenty, number) as disk:
        await new_device(tmp_path / "whole" / "update", made, well=well).follow(payload)
    steps = plenty - disk.good
    assert steps > 60
    for good in range(steps):
        device = new_device(tmp_path / str(good) / "update", made, well=well)
        with bad_disk(names, good, number) as disk:
            await device.begin(payload, lambda: disk.refused > 3 or bool(device.finals()))  # noqa: B023
            assert device.current() in (FACTORY, IMAGE), good
        device.start()
        await device.follow(payload)
        assert_ended(device, good, well=well)


def assert_ended(device: UpdatingDevice, good: int, *, well: bool) -> None:
    # An image that couldn't even be put into its slot was refused by the disk, and went back.
    expected = [(1, Phase.INSTALLED, None)] if well else [(1, Phase.ROLLED_BACK, "health_failed")]
    assert device.finals() in (expected, [(1, Phase.ROLLED_BACK, "install_failed")]), good
    installed = device.finals()[0][1] is Phase.INSTALLED
    assert device.current() == (IMAGE if installed else FACTORY), good
    assert device.counter == (2 if installed else 1), good


@pytest.mark.parametrize("restarts", [True, False])
async def test_a_real_disk_that_fills_up_during_the_download(
    tmp_path: Path, restarts: bool
) -> None:
    made, folder = MadeRepository(), tmp_path / "disk"
    folder.mkdir()
    target = made.add(PATH, LARGE)
    made.publish()
    payload = made.assign(target)
    with small_disk(folder, target.sha256) as disk:
        device = new_device(folder / "update", made, well=True)
        filled: list[int] = []
        failures: list[DeviceError] = []
        fail = device.updater.fail

        async def counted(error: DeviceError) -> None:
            failures.append(error)
            await fail(error)

        async def fetch(target: AssignedTarget, sink: FileSink) -> None:
            device.fetched.append(f"{target.path}@{sink.position}")
            while part := LARGE[sink.position : sink.position + 65_536]:
                if sink.position >= len(LARGE) // 2 and not filled:
                    filled.append(sink.position)
                    disk.fill()
                await sink.write(part)

        device.fetch = fetch  # type: ignore[method-assign]
        device.updater.fail = counted  # type: ignore[method-assign]
        await device.begin(payload, lambda: len(failures) > 2)
        assert device.current() == FACTORY
        assert device.finals() == []
        disk.make_room()
        if restarts:
            device.start()
        await device.follow(payload)
        assert device.finals() == [(1, Phase.INSTALLED, None)]
        assert device.current() == LARGE
        position = int(device.fetched[-1].partition("@")[2])
        assert position >= filled[0], "what had come before wasn't fetched again"


async def test_too_little_room_is_seen_before_the_download(
    device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_bavail = 1
        f_frsize = 4096

    monkeypatch.setattr(os, "statvfs", lambda _path: Full)
    device.most_failures = 3
    device.start()
    await device.follow(device.made.assign(device.made.add(PATH, IMAGE)))
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.SPACE_MISSING)]
    assert device.fetched == []
