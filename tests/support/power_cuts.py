"""Updates whose power is cut after every step, and what must hold of what that leaves."""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from broker.protocol.updates import Phase
from device_client import durable
from device_client.update import commands, steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Image
from device_client.update.journal import looked_at
from tests.support.disk_model import Luck, Step, Tree, lay_down
from tests.support.slot_kinds import Slots
from tests.support.update_disk import LUCKS, LinkedDisk, recorded_with_links
from tests.support.update_repository import FACTS, MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice

Change = Callable[[UpdatingDevice], None]
_EXTREMES = (LUCKS[0], LUCKS[3])
"""Nothing of what isn't synced is there; all of it is."""


def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows what is synced; neither the disk nor a thread needs to be waited for."""

    async def at_once(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return work(*arguments, **named)

    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(asyncio, "to_thread", at_once)


@dataclass(frozen=True)
class Cut:
    """What one cut leaves."""

    what: str
    tree: Tree
    done: tuple[Step, ...] = ()


@dataclass
class Crashes:
    """One kind of slots, and an update that ends in one way."""

    kind: type[Slots]
    well: bool
    monkeypatch: pytest.MonkeyPatch
    change: Change = lambda _: None
    """What else is different about the device."""
    made: MadeRepository = field(default_factory=MadeRepository)

    def __post_init__(self) -> None:
        self.target = self.made.add(self.kind.path, self.kind.image)
        self.made.publish()
        self.payload = self.made.assign(self.target)

    def device(self, slots: Slots) -> UpdatingDevice:
        """The device, which has just been switched on."""
        slots.power_up()
        self.monkeypatch.setattr(commands, "run", slots.run)
        device = UpdatingDevice(
            slots.home, self.made, installer=slots.installer(), restart=slots.restart
        )
        device.part = -(-len(self.kind.image) // 4)
        if not self.well:
            device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
        self.change(device)
        return device

    async def cuts(self, place: Path, *, lucks: Sequence[Luck] | None = LUCKS) -> list[Cut]:
        """What cuts during an update may leave, each once; without `lucks`, `sampled` ones."""
        durable.make_directory(place)
        slots = self.kind(place / "update")
        with recorded_with_links(place) as recording:
            slots.flash()
            begin = len(recording.steps)
            device = self.device(slots)
            await device.follow(self.payload)
            for report in device.reports():
                await device.updater.change(
                    lambda state, report=report: steps.acknowledged(  # type: ignore[misc]
                        state, report.report_id
                    )
                )
        assert slots.selected() == self.outcome
        return list(_left(recording.steps, begin, lucks))

    @property
    def outcome(self) -> bytes:
        """What runs in the end."""
        return self.kind.image if self.well else FACTORY

    @property
    def final(self) -> tuple[int, Phase, str | None]:
        """The one final report."""
        if self.well:
            return (1, Phase.INSTALLED, None)
        return (1, Phase.ROLLED_BACK, "health_failed")

    async def check(self, place: Path) -> None:
        """What holds at once after a cut, and in the end."""
        before = looked_at(place / "update", {})
        counter = before.running["main"].security_counter if "main" in before.running else 1
        is_committed = before.sequence == 1 and before.work is None
        assert counter == (2 if is_committed and self.well else 1)
        slots = self.kind(place / "update")
        device = self.device(slots)
        assert device.counter == counter
        if is_committed:
            image = Image(target=self.target, facts=FACTS)
            assert await slots.installer().runs(image) == self.well, "for ever"
        await self.finish(slots, device)
        if is_committed:
            assert device.finals() in ([], [self.final]), "acknowledged, or to be repeated"
        else:
            assert device.finals() == [self.final]

    async def finish(self, slots: Slots, device: UpdatingDevice) -> None:
        """The update goes on to its end; there is always something whole to start."""
        may_run = (FACTORY, self.kind.image)
        assert slots.selected() in may_run
        await device.settled()
        assert slots.selected() in may_run
        await device.follow(self.payload)
        assert slots.selected() == self.outcome
        assert device.counter == (2 if self.well else 1)


def sampled(number: int) -> Sequence[Luck]:
    """The two extremes, and in turn one of those between: enough where the kind of slots differs
    and all else is the same."""
    return (*_EXTREMES, LUCKS[4 + number % (len(LUCKS) - 4)])


def _left(done: Sequence[Step], begin: int, lucks: Sequence[Luck] | None) -> Iterator[Cut]:
    known = set()
    for count in range(begin, len(done) + 1):
        disk = LinkedDisk(done[:count])
        for luck in lucks or sampled(count):
            tree = disk.left(luck)
            if tree not in known:
                known.add(tree)
                yield Cut(f"after {done[:count][-1:]} with {luck}", tree, tuple(done[:count]))


async def each(
    left: Sequence[Cut], tmp_path: Path, then: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    """Lays each cut's disk down, and does that with it."""
    place = tmp_path / "cut"
    for cut in left:
        lay_down(place, cut.tree)
        try:
            await then(place)
        except Exception as error:
            raise AssertionError(cut.what) from error
        shutil.rmtree(place)
