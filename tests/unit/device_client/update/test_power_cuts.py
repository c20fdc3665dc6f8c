"""The power is cut after every single step of an update; what wasn't synced is there or not.

At every moment one whole image is selected that was verified or came from the factory, the security
counter is what it was or what was committed, and in the end there is exactly one final report.
"""

from pathlib import Path

import msgspec
import pytest

from tests.support.power_cuts import Crashes, each, without_waiting
from tests.support.slot_kinds import KINDS, Slots


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(monkeypatch)


@pytest.fixture(params=[True, False], ids=["commit", "rollback"])
def plain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Crashes:
    """A plain file in directory slots."""
    return Crashes(Slots, request.param, monkeypatch)


async def test_every_cut(tmp_path: Path, plain: Crashes) -> None:
    left = await plain.cuts(tmp_path / "recorded")
    assert len(left) > 60
    await each(left, tmp_path, plain.check)


@pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
async def test_every_step_of_each_kind_of_slots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, well: bool
) -> None:
    crashes = Crashes(KINDS[kind], well, monkeypatch)
    left = await crashes.cuts(tmp_path / "recorded", lucks=None)
    assert len(left) > 60
    await each(left, tmp_path, crashes.check)


async def test_every_cut_and_the_newest_record_is_damaged(tmp_path: Path, plain: Crashes) -> None:
    async def damaged(place: Path) -> None:
        records = list((place / "update").glob("state.*"))
        if records:
            damage(max(records, key=read_generation))
        await plain.check(place)

    await each(await plain.cuts(tmp_path / "recorded"), tmp_path, damaged)


async def test_every_cut_and_the_whole_journal_is_damaged(tmp_path: Path, plain: Crashes) -> None:
    """It begins anew; what is lost is the memory that it was done, not the counter."""

    async def damaged(place: Path) -> None:
        for path in (place / "update").glob("state.*"):
            damage(path)
        kept = place / "update" / "counters"
        reached = msgspec.json.decode(kept.read_bytes())["main"] if kept.exists() else 1
        slots = Slots(place / "update")
        device = plain.device(slots)
        assert device.counter == reached
        await plain.finish(slots, device)
        assert device.finals() == [plain.final]

    await each(await plain.cuts(tmp_path / "recorded"), tmp_path, damaged)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def read_generation(path: Path) -> int:
    return int(msgspec.json.decode(path.read_bytes().partition(b"\n")[2])["generation"])
