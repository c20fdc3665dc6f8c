"""The model of a disk, for an updater: with hard links, and the folders that updates use."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.disk_model import Disk, Luck, Recording, Step, recorded

DEPTHS = range(6)  # above the state, the state, a component, its slots, a slot, what is in it
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
    """As `recorded`, with hard links."""
    with recorded(folder) as recording, pytest.MonkeyPatch.context() as patch:
        real = os.link

        def link(source: Any, target: Any) -> None:
            real(source, target)
            old, new = recording.relative(source), recording.relative(target)
            if old is not None and new is not None:
                recording.steps.append(Step("link", old, new))

        patch.setattr(os, "link", link)
        yield recording
