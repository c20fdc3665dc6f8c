"""Updates that take effect by a reboot: what was booted is tried, never what ran before."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from broker.protocol.updates import Phase
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.installers.directory import DirectorySlots
from device_client.update.journal import Stage
from tests.support.update_repository import MadeRepository
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = b"a better meter"
PATH = "meter/2.0.0/image"


@dataclass
class Machine:
    """Reboots when it's asked to: nothing goes on in that process."""

    boot: int = 1
    asked: list[int] = field(default_factory=list)

    def run_id(self) -> str:
        """Another one after each reboot."""
        return str(self.boot)

    async def perform(self) -> None:
        """The process ends with the machine."""
        self.asked.append(self.boot)
        await asyncio.Event().wait()

    def came_up(self, device: UpdatingDevice) -> None:
        """The agent starts with the machine."""
        self.boot += 1
        device.start()


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def device(tmp_path: Path, machine: Machine) -> UpdatingDevice:
    made = MadeRepository()
    made.add(PATH, IMAGE)
    made.publish()
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", made, restart=machine)


async def until_reboot(device: UpdatingDevice, machine: Machine) -> None:
    payload = device.made.assign(device.made.add(PATH, IMAGE))
    await device.begin(payload, lambda: machine.boot in machine.asked)


async def test_commits_after_the_reboot(device: UpdatingDevice, machine: Machine) -> None:
    await until_reboot(device, machine)
    assert device.health.asked == 0
    machine.came_up(device)
    await device.settled()
    assert device.finals() == [(1, Phase.INSTALLED, None)]
    assert machine.asked == [1]


async def test_an_agent_that_only_crashed_asks_once_more(
    device: UpdatingDevice, machine: Machine
) -> None:
    """What runs is the old image still: it isn't tried in the new one's place."""
    await until_reboot(device, machine)
    device.start()
    await until_reboot(device, machine)
    assert device.updater.state.stage is Stage.RESTARTING
    assert device.health.asked == 0
    machine.came_up(device)
    await device.settled()
    assert device.finals() == [(1, Phase.INSTALLED, None)]


async def test_goes_back_by_another_reboot(device: UpdatingDevice, machine: Machine) -> None:
    await until_reboot(device, machine)
    device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "no network")
    machine.came_up(device)
    await until_reboot(device, machine)
    assert device.current() == FACTORY
    assert device.finals() == [], "not before it runs again"
    machine.came_up(device)
    await device.settled()
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)]
    assert machine.asked == [1, 2]


async def test_the_boot_loader_went_back_by_itself(
    device: UpdatingDevice, machine: Machine
) -> None:
    await until_reboot(device, machine)
    (image,) = device.updater.state.work.images  # type: ignore[union-attr]
    await DirectorySlots(device.home / "main").roll_back(image)
    machine.came_up(device)
    await until_reboot(device, machine)
    machine.came_up(device)
    await device.settled()
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)]
    assert device.health.asked == 0
    assert device.current() == FACTORY
