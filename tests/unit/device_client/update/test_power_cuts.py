"""The power is cut after every single step of an update; what wasn't synced is there or not.

At every moment one whole image is selected that was verified or came from the factory, the security
counter is what it was or what was committed, and in the end there is exactly one final report.
"""

import asyncio
import os
import shutil
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from broker.protocol.updates import Phase
from device_client import durable
from device_client.update import steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.journal import looked_at
from tests.support.disk_model import Step, Tree, lay_down
from tests.support.update_disk import LUCKS, LinkedDisk, recorded_with_links
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice

IMAGE = b"a better meter"
PATH = "meter/2.0.0/image"


@pytest.fixture(autouse=True)
def without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model knows what is synced; neither the disk nor a thread needs to be waited for."""

    async def at_once(work: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        return work(*arguments, **named)

    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)
    monkeypatch.setattr(asyncio, "to_thread", at_once)


@pytest.fixture
def made() -> MadeRepository:
    made = MadeRepository()
    made.add(PATH, IMAGE)
    made.publish()
    return made


@dataclass(frozen=True)
class Cut:
    """What one cut leaves."""

    what: str
    tree: Tree


def flashed_durably(home: Path) -> None:
    """A device as it leaves the factory."""
    for folder in (home, home / "main", home / "main" / "slots", home / "main/slots/factory"):
        durable.make_directory(folder)
    durable.create_file(home / "main/slots/factory/image", FACTORY)
    durable.sync_directory(home / "main/slots/factory")
    durable.replace_link(home / "main" / "current", "slots/factory")


async def cuts(place: Path, made: MadeRepository, payload: bytes, *, well: bool) -> list[Cut]:
    """Every state that a cut during an update may leave, each once."""
    durable.make_directory(place)
    with recorded_with_links(place) as recording:
        flashed_durably(place / "update")
        begin = len(recording.steps)
        device = device_in(place, made, well=well)
        await device.follow(payload)
        for report in device.reports():
            await device.updater.change(
                lambda state, report=report: steps.acknowledged(state, report.report_id)  # type: ignore[misc]
            )
    assert device.current() == (IMAGE if well else FACTORY)
    return list(_left(recording.steps, begin))


def _left(done: Sequence[Step], begin: int) -> Iterator[Cut]:
    known = set()
    for count in range(begin, len(done) + 1):
        disk = LinkedDisk(done[:count])
        for luck in LUCKS:
            tree = disk.left(luck)
            if tree not in known:
                known.add(tree)
                yield Cut(f"after {done[:count][-1:]} with {luck}", tree)


def device_in(place: Path, made: MadeRepository, *, well: bool) -> UpdatingDevice:
    device = UpdatingDevice(place / "update", made)
    if not well:
        device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
    return device


async def check(place: Path, made: MadeRepository, payload: bytes, *, well: bool) -> None:
    """What holds at once after a cut, and in the end."""
    before = looked_at(place / "update", {})
    counter = before.running["main"].security_counter if "main" in before.running else 1
    is_committed = before.sequence == 1 and before.work is None
    assert counter == (2 if is_committed and well else 1)
    device = device_in(place, made, well=well)
    assert device.counter == counter
    await finish(device, payload, well=well)
    if is_committed:
        assert device.finals() in ([], [final(well)]), "acknowledged, or to be repeated"
    else:
        assert device.finals() == [final(well)]


async def finish(device: UpdatingDevice, payload: bytes, *, well: bool) -> None:
    """The update goes on to its end; there is always something whole to start."""
    assert device.current() in (FACTORY, IMAGE)
    await device.settled()
    assert device.current() in (FACTORY, IMAGE)
    await device.follow(payload)
    assert device.current() == (IMAGE if well else FACTORY)
    assert device.counter == (2 if well else 1)


def final(well: bool) -> tuple[int, Phase, str | None]:
    return (1, Phase.INSTALLED, None) if well else (1, Phase.ROLLED_BACK, "health_failed")


async def each(
    left: Sequence[Cut], tmp_path: Path, then: Callable[[Path], Coroutine[Any, Any, None]]
) -> None:
    place = tmp_path / "cut"
    for cut in left:
        lay_down(place, cut.tree)
        try:
            await then(place)
        except Exception as error:
            raise AssertionError(cut.what) from error
        shutil.rmtree(place)


both = pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])


@both
async def test_every_cut(tmp_path: Path, made: MadeRepository, well: bool) -> None:
    payload = made.assign(made.add(PATH, IMAGE))
    left = await cuts(tmp_path / "recorded", made, payload, well=well)
    assert len(left) > 60
    await each(left, tmp_path, lambda place: check(place, made, payload, well=well))


@both
async def test_every_cut_and_the_newest_record_is_damaged(
    tmp_path: Path, made: MadeRepository, well: bool
) -> None:
    payload = made.assign(made.add(PATH, IMAGE))

    async def damaged(place: Path) -> None:
        records = list((place / "update").glob("state.*"))
        if records:
            damage(max(records, key=read_generation))
        await check(place, made, payload, well=well)

    left = await cuts(tmp_path / "recorded", made, payload, well=well)
    await each(left, tmp_path, damaged)


@both
async def test_every_cut_and_the_whole_journal_is_damaged(
    tmp_path: Path, made: MadeRepository, well: bool
) -> None:
    """It begins anew; what is lost is the memory that it was done, not the counter."""
    payload = made.assign(made.add(PATH, IMAGE))

    async def damaged(place: Path) -> None:
        for path in (place / "update").glob("state.*"):
            damage(path)
        kept = place / "update" / "counters"
        reached = msgspec.json.decode(kept.read_bytes())["main"] if kept.exists() else 1
        device = device_in(place, made, well=well)
        assert device.counter == reached
        await finish(device, payload, well=well)
        assert device.finals() == [final(well)]

    left = await cuts(tmp_path / "recorded", made, payload, well=well)
    await each(left, tmp_path, damaged)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def read_generation(path: Path) -> int:
    return int(msgspec.json.decode(path.read_bytes().partition(b"\n")[2])["generation"])
