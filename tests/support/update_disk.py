"""The model of a disk, for an updater: with hard links, and the folders that updates use."""

import io
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.disk_model import Disk, Luck, Recording, Step, recorded

DEPTHS = range(8)  # above the state, the state, a component, its slots, a slot, two levels in it
LUCKS = [
    Luck(frozenset(names), share)
    for names in [(), DEPTHS, *((depth,) for depth in DEPTHS)]
    for share in (0, 1)
]


class LinkedDisk(Disk):
    """Two names of one file: what is synced by one is by the other."""

    def _link(self, step: Step) -> None:
        names, name = self._parent(step.other)
        names[name] = self._find(step.path)


@contextmanager
def recorded_with_links(folder: Path) -> Iterator[Recording]:
    """As `recorded`, with hard links, and with what is unpacked from archives."""
    with recorded(folder) as recording, pytest.MonkeyPatch.context() as patch:
        real = os.link

        def link(source: Any, target: Any) -> None:
            real(source, target)
            old, new = recording.relative(source), recording.relative(target)
            if old is not None and new is not None:
                recording.steps.append(Step("link", old, new))

        patch.setattr(os, "link", link)
        patch.setattr(tarfile, "bltn_open", _opened_by_os)
        yield recording


class _ByOs(io.RawIOBase):
    """A file that is written by `os.write`, which is recorded; Python's own isn't."""

    def __init__(self, path: Any) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)

    def write(self, data: Any) -> int:
        """All of it."""
        return os.write(self._descriptor, data)

    def close(self) -> None:
        """Once."""
        if not self.closed:
            os.close(self._descriptor)
        super().close()


def _opened_by_os(path: Any, mode: str) -> Any:
    return _ByOs(path) if "w" in mode else open(path, mode)  # noqa: PTH123
