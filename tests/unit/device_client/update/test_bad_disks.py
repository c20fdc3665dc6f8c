"""Disks that are full or read-only from some step on, and later aren't: the update waits."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.updates import Phase
from device_client.update.codes import UpdateCode, UpdateRefused
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = b"a better meter"
PATH = "meter/2.0.0/image"
CHANGING = ("write", "mkdir", "replace", "rename", "symlink", "link", "unlink", "rmdir")


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
        for name in names:
            patch.setattr(os, name, refusing(disk, getattr(os, name)))
        yield disk


def refusing(disk: BadDisk, real: Any) -> Any:
    def call(*args: Any, **options: Any) -> Any:
        disk.step()
        return real(*args, **options)

    return call


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    made = MadeRepository()
    made.add(PATH, IMAGE)
    made.publish()
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", made, most_failures=10**6)


bad = pytest.mark.parametrize(
    ("names", "number"),
    [(("write",), errno.ENOSPC), (CHANGING, errno.EROFS)],
    ids=["full", "read-only"],
)


@bad
@pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("good", [*range(20), 25, 30, 35, 40, 45])
async def test_waits_and_goes_on(
    device: UpdatingDevice, names: tuple[str, ...], number: int, good: int, well: bool
) -> None:
    payload = device.made.assign(device.made.add(PATH, IMAGE))
    if not well:
        device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
    with bad_disk(names, good, number) as disk:
        await device.begin(payload, lambda: disk.refused > 3 or bool(device.finals()))
        assert device.current() in (FACTORY, IMAGE)
    device.start()
    await device.follow(payload)
    # An image that couldn't even be put into its slot was refused by the disk, and went back.
    expected = [(1, Phase.INSTALLED, None)] if well else [(1, Phase.ROLLED_BACK, "health_failed")]
    assert device.finals() in (expected, [(1, Phase.ROLLED_BACK, "install_failed")])
    installed = device.finals()[0][1] is Phase.INSTALLED
    assert device.current() == (IMAGE if installed else FACTORY)
    assert device.counter == (2 if installed else 1)


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
