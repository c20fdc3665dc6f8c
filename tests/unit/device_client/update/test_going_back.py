"""Ways back that are blocked, and restarts that end the agent: it's never out of reach for good."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker.protocol.updates import AssignedTarget, Phase
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Image
from device_client.update.installers.directory import DirectorySlots
from device_client.update.installers.port import InstallFailed
from device_client.update.journal import Journal, Stage
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = b"a better meter"
PATH = "meter/2.0.0/image"


class Stuck(DirectorySlots):
    """Can't go back so many times."""

    times = 0

    async def roll_back(self, image: Image) -> None:
        """As `Installer` says."""
        if self.times > 0:
            self.times -= 1
            raise InstallFailed("the boot loader's variables can't be written")
        await super().roll_back(image)


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    device = UpdatingDevice(tmp_path / "update", MadeRepository(), most_failures=4)
    device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
    return device


def published(device: UpdatingDevice, content: bytes = IMAGE, path: str = PATH) -> AssignedTarget:
    target = device.made.add(path, content)
    device.made.publish()
    return target


def with_slots(device: UpdatingDevice, times: int) -> None:
    slots = Stuck(device.home / "main")
    slots.times = times
    device.updater.means.installers["main"] = slots  # type: ignore[index]


async def test_what_keeps_it_from_going_back_may_pass(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    with_slots(device, times=3)
    await device.follow(payload)
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)]
    assert device.current() == FACTORY


async def test_the_fleet_hears_that_there_is_no_way_back(device: UpdatingDevice) -> None:
    """And the next assignment may mend it."""
    payload = device.made.assign(published(device))
    with_slots(device, times=4)
    await device.follow(payload)
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.ROLLBACK_FAILED)]
    detail = device.reports()[-1].detail
    assert detail is not None
    assert "health_failed" in detail
    assert device.counter == 1
    device.health.why = None
    other = published(device, b"the third", "meter/3/image")
    await device.follow(device.made.assign(other, sequence=2, rollout="summer"))
    assert device.finals()[-1] == (2, Phase.INSTALLED, None)
    assert device.current() == b"the third"


@pytest.mark.parametrize("stage", [Stage.READY, Stage.TRIAL])
async def test_a_component_that_is_gone_from_the_configuration(
    device: UpdatingDevice, stage: Stage
) -> None:
    device.health.hangs = True
    window = "22:00-23:00" if stage is Stage.READY else None
    payload = device.made.assign(published(device), window=window)
    await device.begin(payload, lambda: device.updater.state.stage is stage)
    device.start()
    device.clock = device.clock.replace(hour=22, minute=30)
    device.updater.means.installers.clear()  # type: ignore[attr-defined]
    async with device.attended():
        while not device.finals():
            await device.updater.until_changed(device.updater.state)
    phase, code = device.finals()[0][1:]
    if stage is Stage.READY:
        assert (phase, code) == (Phase.REFUSED, UpdateCode.COMPONENT_UNKNOWN)
    else:
        assert (phase, code) == (Phase.ROLLED_BACK, UpdateCode.ROLLBACK_FAILED)


async def test_a_fault_of_the_agent_does_not_end_it(
    device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would at each start, for good: the part that has it is tried again."""
    device.health.why = None
    payload = device.made.assign(published(device))
    faults = [ZeroDivisionError(), ZeroDivisionError()]
    runs = DirectorySlots.runs

    async def faulty(slots: DirectorySlots, image: Image) -> bool:
        if device.updater.state.stage is Stage.TRIAL and faults:
            raise faults.pop()
        return await runs(slots, image)

    monkeypatch.setattr(DirectorySlots, "runs", faulty)
    await device.follow(payload)
    assert device.finals() == [(1, Phase.INSTALLED, None)]


@dataclass
class AgentsOwnRestart:
    """Restarts the services, this agent among them; nothing tells one run from another."""

    asked: int = 0

    def run_id(self) -> str:
        """As `ServiceRestart`'s."""
        return ""

    async def perform(self) -> None:
        """The process ends."""
        self.asked += 1
        await asyncio.Event().wait()


@pytest.mark.parametrize("well", [True, False], ids=["commit", "rollback"])
async def test_a_restart_that_ends_the_agent_is_not_repeated_for_ever(
    device: UpdatingDevice, well: bool
) -> None:
    device.restart = restart = AgentsOwnRestart()
    if well:
        device.health.why = None
    device.start()
    payload = device.made.assign(published(device))
    lives = 0
    while not device.finals():
        asked, lives = restart.asked, lives + 1
        await device.begin(
            payload,
            lambda asked=asked: restart.asked > asked or bool(device.finals()),  # type: ignore[misc]
        )
        device.start()
        assert lives < 10
    assert restart.asked == (2 if well else 4)
    expected = (Phase.INSTALLED, None) if well else (Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)
    assert device.finals() == [(1, *expected)]
    assert device.current() == (IMAGE if well else FACTORY)


async def test_the_second_copy_of_what_is_over_may_fail(
    device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is done: it's reported at once, not at the next change of something else."""
    device.health.why = None
    payload = device.made.assign(published(device))
    keep = Journal._keep
    refused = []

    def keep_once(journal: Journal, state: object) -> None:
        if journal.state.sequence and journal.state.stage is None:
            refused.append(state)
            raise OSError(28, "No space left on device")
        keep(journal, state)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "_keep", keep_once)
    await device.begin(payload, lambda: bool(refused) and bool(device.finals()))
    assert device.finals() == [(1, Phase.INSTALLED, None)]
