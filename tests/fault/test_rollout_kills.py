"""Kill -9 of the service at every step of a rollout: each device is told once and counts once."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.records import EventKind
from broker.core.rollout import Progress, RolloutInput, RolloutState, Selection
from broker.core.update_records import KnownReport
from broker.operating.updating import update_repository
from broker.protocol.names import DeviceId
from broker.protocol.topics import metadata_topic
from broker.protocol.updates import Assignment, Phase, ReportAccepted, UpdateReport
from broker.protocol.zones import Zone
from broker.services import rollouts
from broker.services.rollouts import Push, RolloutView
from broker.settings import BrokerKind
from tests.fault.dying_rollout import (
    CALLING_BACK,
    PREPARING,
    PUBLISHING,
    RELEASING,
    REPORTING,
    TELLING,
)
from tests.support.acting import joined
from tests.support.certificates import Client
from tests.support.peers import peer
from tests.support.stack import Plan, Stack, prepared_stack
from tests.support.update_devices import UpdateDevice, update_device, workshop_of
from tests.support.update_workshop import Workshop
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)
_PATIENCE_S: Final = 60.0


@dataclass(frozen=True)
class Site:
    """An installation with one published image; the service is started and killed by each test."""

    stack: Stack
    workshop: Workshop
    path: str

    async def push(self, *clients: Client, hold: bool = False) -> str:
        """Writes a rollout for these down; its name."""
        published = update_repository(self.stack.home, None).targets()
        clock, name = SystemClock(), f"kill-{next(_numbers)}"
        selection = Selection(devices=tuple(DeviceId(client.name) for client in clients))
        push = Push(name, (self.path,), selection, hold=hold)
        planned = rollouts.planned(push, published, clock.now())
        async with open_registry(self.stack.home, self.stack.installation.settings) as registry:
            await rollouts.start(registry, clock, planned)
        return name

    async def look(self, name: str) -> RolloutView:
        async with open_registry(self.stack.home, self.stack.installation.settings) as registry:
            return await rollouts.look(registry, name)

    async def steer(self, name: str, happens: RolloutInput) -> None:
        async with open_registry(self.stack.home, self.stack.installation.settings) as registry:
            await rollouts.steer(registry, SystemClock(), name, happens, None)

    async def ends(self, name: str, is_over: Callable[[RolloutView], bool]) -> None:
        """Returns when the rollout stands so."""

        async def stands() -> bool:
            return is_over(await self.look(name))

        await eventually(stands, within=_PATIENCE_S)

    async def reports_of(self, device: DeviceId) -> list[KnownReport]:
        async with open_registry(self.stack.home, self.stack.installation.settings) as registry:
            return await registry.read(lambda tx: tx.reports_of(device, 100))

    async def launch_dying(self, step: str) -> None:
        await self.stack.process.launch("-m", "tests.fault.dying_rollout", f"{step}:1")

    async def has_died(self) -> None:
        await self.stack.process.has_died(_PATIENCE_S)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    place = tmp_path_factory.mktemp("site")
    plan = Plan(BrokerKind.MOSQUITTO, in_process=False, forks=True)
    async with prepared_stack(place, plan) as prepared:
        await prepared.installation.standard([])
        workshop = await asyncio.to_thread(workshop_of, prepared, place)
        path = await asyncio.to_thread(workshop.publish_image)
        await prepared.start_service()
        yield Site(prepared, workshop, path)
        await prepared.kill_service()


async def new_devices(site: Site, place: Path) -> tuple[Client, Client]:
    if not site.stack.process.is_running:
        await site.stack.start_service()
    one, two = await joined(site.stack, place, f"R{next(_numbers):03d}", f"R{next(_numbers):03d}")
    return one, two


def a_report(assignment: Assignment, phase: Phase) -> UpdateReport:
    return UpdateReport(
        report_id=f"final-{assignment.sequence}",
        device_id=assignment.device_id,
        rollout=assignment.rollout,
        sequence=assignment.sequence,
        phase=phase,
        at=datetime.now(UTC),
    )


async def repeated(device: UpdateDevice, assignment: Assignment, phase: Phase) -> None:
    """Reports until it's accepted, as every device does."""
    report = a_report(assignment, phase)
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            try:
                assert isinstance(await device.send(report, within=1.0), ReportAccepted)
            except TimeoutError:
                continue
            return


async def told(device: UpdateDevice) -> Assignment:
    """What it's told first that isn't the end of something older."""
    while (assignment := await device.told(within=_PATIENCE_S)) is None:
        pass
    return assignment


async def counted_once(site: Site, device: UpdateDevice, kind: EventKind, ends: int) -> None:
    reports = await site.reports_of(device.id)
    assert len(reports) == ends
    events = [e for e in await site.stack.events_of(kind) if e.device_id == device.id]
    assert len(events) == 1


@pytest.mark.parametrize("step", [*TELLING, *REPORTING])
async def test_each_device_is_told_one_thing_and_counts_once(
    site: Site, step: str, tmp_path: Path
) -> None:
    one, two = await new_devices(site, tmp_path)
    await site.stack.kill_service()
    name = await site.push(one, two)
    async with update_device(site.stack, one) as first, update_device(site.stack, two) as second:
        await site.launch_dying(step)
        if step in TELLING:
            await site.has_died()
            await site.stack.start_service()
            assignments = [await told(device) for device in (first, second)]
            reports = [
                repeated(device, assignment, Phase.INSTALLED)
                for device, assignment in zip((first, second), assignments, strict=True)
            ]
            await asyncio.gather(*reports)
        else:
            assignments = [await told(device) for device in (first, second)]
            reporting = asyncio.gather(
                repeated(first, assignments[0], Phase.INSTALLED),
                repeated(second, assignments[1], Phase.INSTALLED),
            )
            await site.has_died()
            await site.stack.start_service()
            await reporting
        assert [assignment.sequence for assignment in assignments] == [1, 1]
        await site.ends(name, lambda view: view.rollout.state is RolloutState.DONE)
        assert (await site.look(name)).at(Progress.INSTALLED) == 2
        for device in (first, second):
            await counted_once(site, device, EventKind.UPDATE_INSTALLED, 1)


@pytest.mark.parametrize("step", [*PREPARING, *RELEASING])
async def test_what_is_prepared_is_told_once_and_after_the_release(
    site: Site, step: str, tmp_path: Path
) -> None:
    one, two = await new_devices(site, tmp_path)
    await site.stack.kill_service()
    name = await site.push(one, two, hold=True)
    if step in PREPARING:
        await site.launch_dying(step)
        await site.has_died()
    await site.stack.start_service()
    await site.ends(name, lambda view: view.prepared == 2)
    async with update_device(site.stack, one) as first, update_device(site.stack, two) as second:
        if step in RELEASING:
            await site.stack.kill_service()
        await site.steer(name, RolloutInput.RELEASE)
        if step in RELEASING:
            await site.launch_dying(step)
            await site.has_died()
            await site.stack.start_service()
        for device in (first, second):
            assignment = await told(device)
            assert (assignment.rollout, assignment.sequence) == (name, 1)
            await repeated(device, assignment, Phase.INSTALLED)
        await site.ends(name, lambda view: view.rollout.state is RolloutState.DONE)
        assert (await site.look(name)).at(Progress.INSTALLED) == 2
        for device in (first, second):
            await counted_once(site, device, EventKind.UPDATE_INSTALLED, 1)


@pytest.mark.parametrize("step", CALLING_BACK)
async def test_who_is_called_back_hears_of_it(site: Site, step: str, tmp_path: Path) -> None:
    one, two = await new_devices(site, tmp_path)
    name = await site.push(one, two)
    async with update_device(site.stack, one) as first, update_device(site.stack, two) as second:
        assignments = [await told(device) for device in (first, second)]
        await site.stack.kill_service()
        await site.steer(name, RolloutInput.CANCEL)
        await site.launch_dying(step)
        await site.has_died()
        await site.stack.start_service()
        for device, before in zip((first, second), assignments, strict=True):
            while (call := await told(device)).sequence == before.sequence:
                pass
            assert (call.sequence, call.targets) == (2, ())
            await repeated(device, call, Phase.CANCELLED)
        await site.ends(name, lambda view: view.at(Progress.CANCELLED) == 2)
        await site.ends(name, lambda view: not view.rollout.moving)


@pytest.mark.parametrize("step", PUBLISHING)
async def test_metadata_is_there_whole(site: Site, step: str, tmp_path: Path) -> None:
    one, _ = await new_devices(site, tmp_path)
    await site.stack.kill_service()
    version = f"2.0.{next(_numbers)}"
    await asyncio.to_thread(site.workshop.publish_image, version)
    await site.launch_dying(step)
    await site.has_died()
    await site.stack.start_service()
    files = update_repository(site.stack.home, None).files()
    heard: dict[str, bytes] = {}
    async with peer(site.stack.ports[Zone.FLEET], one) as connection:
        await connection.hear(metadata_topic("+"))
        while any(heard.get(name) != content for name, content in files.items()):
            message = await connection.next(within=_PATIENCE_S)
            heard[message.topic.removeprefix(metadata_topic(""))] = message.payload
