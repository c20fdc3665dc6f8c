"""The power is cut after every step of a real download that is resumed, its budget counted."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from broker.protocol.updates import AssignedTarget
from device_client.fetch import budget, plan
from device_client.fetch.budget import DailyBudget
from device_client.fetch.suspects import Suspects
from device_client.update.sink import FileSink
from tests.support.disk_model import Luck, Step
from tests.support.hostile_http import honest, hostile
from tests.support.power_cuts import Crashes, each, without_waiting
from tests.support.sinks import quick
from tests.support.slot_kinds import Slots
from tests.support.update_disk import DEPTHS, LUCKS
from tests.support.update_repository import NOW
from tests.support.updating import UpdatingDevice

IMAGE = Slots.image
PART = 5
"""Bytes that the server sends until it breaks off."""
KEPT_EVERY = 4
PER_DAY = 1 << 20
SOME = (LUCKS[0], LUCKS[3], Luck(frozenset(DEPTHS), 0.5))
"""Nothing of what isn't synced is there, all of it, and half of each content."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """In a thread of its own: the device's steps are done at once, where they're called."""
    with serving() as where:
        yield where


@contextmanager
def serving() -> Iterator[str]:
    """A server that breaks off after each few bytes, and knows ranges."""
    loop, found = asyncio.new_event_loop(), list[str]()
    up, over = threading.Event(), asyncio.Event()

    async def serve() -> None:
        async with hostile(honest(IMAGE, cut_after=PART)) as server:
            found.append(server.url)
            up.set()
            await over.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert up.wait(30)
    yield found[0]
    loop.call_soon_threadsafe(over.set)
    thread.join()
    loop.close()


@pytest.fixture(params=[True, False], ids=["commit", "rollback"])
def crashes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, url: str) -> Crashes:
    monkeypatch.setattr(budget, "_KEEP_EVERY", KEPT_EVERY)
    without_waiting(monkeypatch)

    def really(device: UpdatingDevice) -> None:
        """What the agent fetches with."""

        async def fetch(target: AssignedTarget, sink: FileSink) -> None:
            limits = quick(budget=counted(device.home))
            named = replace(target, sources=(url,))
            await plan.fetch(named, sink, None, limits, "", Suspects())

        device.fetch = fetch  # type: ignore[method-assign]

    return Crashes(Slots, request.param, monkeypatch, really)


def counted(home: Path) -> DailyBudget:
    return DailyBudget(PER_DAY, home / "budget", NOW.date)


async def test_every_cut(tmp_path: Path, crashes: Crashes) -> None:
    left = await crashes.cuts(tmp_path / "recorded", lucks=SOME)
    assert written(left[-1].done, "/incoming/") == IMAGE
    assert written(left[-1].done, "budget.new").count(b"\n") > 2, "each part was counted"
    for cut in left:
        # Before the download is over: how much it is, is in the file that grows.
        home = dict(cut.tree)["update"]
        kept = dict(home).get("budget", b"")  # type: ignore[arg-type]
        assert isinstance(kept, bytes)
        spent = int(kept.split()[1]) if kept else 0
        fetched = len(written(cut.done, "/incoming/"))
        assert fetched - spent < KEPT_EVERY, "no cut makes a device forget more than that"
    await each(left, tmp_path, crashes.check)


def written(done: tuple[Step, ...], where: str) -> bytes:
    return b"".join(step.data for step in done if step.kind == "write" and where in step.path)


async def test_what_wasn_t_synced_came_out_as_zeros(tmp_path: Path, crashes: Crashes) -> None:
    """The length is there and the bytes aren't, as file systems have it that write them later."""

    async def zeroed(place: Path) -> None:
        for part in (place / "update/main/slots/incoming").glob("*"):
            content = part.read_bytes()
            part.write_bytes(content[:PART] + bytes(len(content[PART:])))
        await crashes.check(place)

    unsynced = [cut for cut in await crashes.cuts(tmp_path / "recorded") if is_growing(cut.done)]
    assert len(unsynced) > 5
    await each(unsynced, tmp_path, zeroed)


def is_growing(done: tuple[Step, ...]) -> bool:
    """Whether the download has begun, and none of it is synced."""
    steps = [step.kind for step in done if "/incoming/" in step.path]
    return "write" in steps and "fsync" not in steps
