"""A stolen director's key assigns without end: what a device writes to its flash is bounded."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from device_client.errors import NoAnswer
from device_client.settings import Timing
from device_client.update.codes import UpdateCode
from device_client.update.config import DeviceConfig
from device_client.update.fetching import fetcher
from device_client.update.journal import Stage
from device_client.update.pacing import Pacing
from tests.support.hostile_http import honest, hostile
from tests.support.update_repository import NOW, MadeRepository
from tests.support.updating import UpdatingDevice, flashed

IMAGES = [bytes([n]) * 50_000 for n in range(2)]
IDENTITY = SimpleNamespace(
    device_id="meter-1",
    fleet=SimpleNamespace(host="localhost"),
    trust_bundle=SimpleNamespace(anchors=""),
)


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", MadeRepository())


def connect(device: UpdatingDevice, known: DeviceConfig) -> None:
    """As after a restart of the agent: downloads are the real ones."""
    device.start()
    online = cast(Any, SimpleNamespace(identity=IDENTITY, connection=None))
    on = fetcher(known, device.home, (), device.timekeeper, Timing())
    device.fetch = on(online, device.updater)  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("most", [None, 200_000])
async def test_nobody_has_a_device_download_all_day(
    device: UpdatingDevice, most: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Assigned by turns and never switched: the switches' bound isn't reached."""

    async def no_blocks(*_: object) -> None:
        raise NoAnswer("The service says nothing.")

    monkeypatch.setattr("device_client.exchange.ask", no_blocks)
    known = DeviceConfig(model="meter", most_per_day=most)
    allowed = most or 8 * len(IMAGES[0])
    targets = [device.made.add(f"meter/2.0.{n}/i.bin", IMAGES[n]) for n in range(2)]
    device.made.publish()
    never = NOW + timedelta(days=6)
    times = allowed // len(IMAGES[0])
    async with hostile(honest(IMAGES[0])) as one, hostile(honest(IMAGES[1])) as two:
        urls = (one.url, two.url)

        def assigned(number: int) -> bytes:
            target = replace(targets[number % 2], sources=(urls[number % 2],))
            return device.made.assign(
                target, sequence=number, rollout=f"r{number}", not_before=never
            )

        def is_ready(number: int) -> bool:
            work = device.updater.state.work
            return work is not None and (work.sequence, work.stage) == (number, Stage.READY)

        def is_spent() -> bool:
            refusal = device.updater.state.refusal
            return refusal is not None and refusal.code == UpdateCode.IMAGE_BUDGET_SPENT

        for number in range(1, times + 1):
            connect(device, known)
            await device.begin(assigned(number), partial(is_ready, number))
        connect(device, known)
        await device.begin(assigned(times + 1), is_spent)
        assert device.updater.state.stage is Stage.DOWNLOADING, "it waits, and isn't refused"
        device.clock = NOW + timedelta(days=1)
        connect(device, known)
        await device.begin(assigned(times + 1), partial(is_ready, times + 1))


async def test_news_without_end_is_followed_at_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]

    async def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr("device_client.update.pacing.asyncio.sleep", sleep)
    pacing = Pacing(lambda: now[0])
    for number in range(60):
        await pacing.turn({"desired": b"%d" % number})
    assert now[0] == 0.0, "a day's news comes at once, if need be"
    for number in range(60, 200):
        await pacing.turn({"desired": b"%d" % number})
    assert now[0] == pytest.approx(140 * 600.0)
    for _ in range(1000):
        await pacing.turn({"desired": b"199"})
    assert now[0] == pytest.approx(140 * 600.0), "what is known already isn't news"


async def test_the_newest_of_many_is_the_next() -> None:
    """Who waits for a turn and is called off has taken none."""
    pacing = Pacing(lambda: 0.0)
    for number in range(60):
        await pacing.turn({"desired": b"%d" % number})
    waiting = [asyncio.create_task(pacing.turn({"desired": b"x%d" % n})) for n in range(3)]
    for each in waiting:
        await asyncio.sleep(0)
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert pacing._left == 0.0
