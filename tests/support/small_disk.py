"""A disk with little room, for whatever is put into one folder."""

import ctypes
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Protocol

_libc: Final = ctypes.CDLL(None, use_errno=True)
_MNT_DETACH: Final = 2
_SIZE: Final = 32 * 1024 * 1024
_PAGE: Final = 4096
_LEFT: Final = 2 * _PAGE


class SmallDisk(Protocol):
    """It has room until `fill`, and again after `make_room`."""

    def fill(self) -> None:
        """Leaves next to nothing."""

    def make_room(self) -> None:
        """Gives back what `fill` took."""


@contextmanager
def small_disk(folder: Path, growing: str) -> Iterator[SmallDisk]:
    """`folder`, which is empty, becomes such a disk until the end.

    For root it's a file system of its own. Others can't mount one: for them no file of this process
    may grow beyond the one named `growing` at the time of `fill`.
    """
    options = f"size={_SIZE},mode=0700".encode()
    if os.geteuid() != 0:
        limited = _SizeLimit(folder, growing)
        try:
            yield limited
        finally:
            limited.make_room()
        return
    if _libc.mount(b"muster-test", os.fsencode(folder), b"tmpfs", 0, options) != 0:
        raise OSError(ctypes.get_errno(), "this test mounts a tmpfs, which isn't permitted here")
    try:
        yield _Tmpfs(folder)
    finally:
        _libc.umount2(os.fsencode(folder), _MNT_DETACH)


class _Tmpfs:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    def fill(self) -> None:
        status = os.statvfs(self._folder)
        taken = max(_PAGE, status.f_bavail * status.f_frsize - _LEFT)
        with self._filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)

    def make_room(self) -> None:
        self._filler.unlink()


class _SizeLimit:
    def __init__(self, folder: Path, growing: str) -> None:
        self._folder = folder
        self._growing = growing

    def fill(self) -> None:
        (file,) = self._folder.rglob(self._growing)
        self._limit(file.stat().st_size + _LEFT)

    def make_room(self) -> None:
        self._limit(None)

    def _limit(self, size: int | None) -> None:
        # Python ignores SIGXFSZ, so that what is written beyond it fails.
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard if size is None else size, hard))
