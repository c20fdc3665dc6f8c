"""Real agents update themselves over real brokers: metadata, assignments, blocks, reports."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from broker.composition.registries import open_registry
from broker.core.rollout import Progress, Selection
from broker.core.rollout_pace import StopRule
from broker.operating.updating import update_repository
from broker.ports.registry import DeviceFilter, ReadTransaction
from broker.protocol import codec
from broker.protocol.bundle import write_bundle
from broker.services import rollouts
from broker.services.rollouts import Push, RolloutView
from device_client import cli, keystore, status
from device_client.agent import Agent
from device_client.enrollment import Enrollment
from device_client.status_note import StatusFile
from device_client.timekeeping import Timekeeper
from device_client.update import config, entry
from device_client.update.config import Component, DeviceConfig
from tests.support.acting import run_muster
from tests.support.device_agents import QUICK, utc_now
from tests.support.stack import Stack
from tests.support.update_devices import workshop_of
from tests.support.update_workshop import MODEL, SetClock, Workshop
from tests.support.waiting import eventually

UNWELL = ("sh", "-c", "echo the radio is silent; exit 1")


async def push(stack: Stack, workshop: Workshop, path: str, name: str) -> None:
    published = await asyncio.to_thread(update_repository(workshop.home, None).targets)
    wanted = Push(name, (path,), Selection(everyone=True), stop=StopRule(above=1.0))
    plan = rollouts.planned(wanted, published, SetClock().now())
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await rollouts.start(registry, SetClock(), plan)


async def look(stack: Stack, name: str) -> RolloutView:
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await rollouts.look(registry, name)


async def running(stack: Stack) -> list[dict[str, str]]:
    """What each device has said that it runs."""

    def work(view: ReadTransaction) -> list[dict[str, str]]:
        names = [device.id for device in view.devices(DeviceFilter())]
        return [known.running for known in view.device_updates(names)]

    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await registry.read(work)


@asynccontextmanager
async def updating(
    stack: Stack, workshop: Workshop, state: Path, serial: str, health: Sequence[str] | None = None
) -> AsyncIterator[Path]:
    """An agent with an updater, as `muster-device run --model …` makes it; its slots' folder."""
    root = state.with_suffix(".root")
    await asyncio.to_thread(root.write_bytes, workshop.first_root())
    slots = state / "update" / "components" / "main"
    with keystore.opened(state) as store:
        store.remember(Enrollment(bundle=stack.bundle(), serial=serial))
        known = DeviceConfig(
            model=MODEL,
            components={"main": Component(version="0.9")},
            health=tuple(health) if health else None,
        )
        told = state.with_suffix(".json")
        await asyncio.to_thread(told.write_bytes, codec.encode(known))
        config.remember(state / entry.FOLDER, told, None, None)
        config.remember_root(state / entry.FOLDER, root)
        timekeeper = Timekeeper(state / "clock.json", utc_now)
        duty = entry.prepare(store, timekeeper, QUICK)
        assert duty is not None
        agent = Agent(store, StatusFile(state), QUICK, duties=[duty], timekeeper=timekeeper)
        task = asyncio.create_task(entry.beside(duty, agent.run()))
        try:
            yield slots
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def runs(slots: Path) -> bytes | None:
    try:
        return (slots / "current" / "image").read_bytes()
    except FileNotFoundError:
        return None


async def test_the_contact_for_weaknesses_travels_with_the_image(
    stack: Stack, tmp_path: Path
) -> None:
    """From the command that adds an image to what is said of who runs it, at both ends."""
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    contact, image = "mailto:security@example.com", tmp_path / "firmware.bin"
    image.write_bytes(b"firmware")
    facts = ("--model", MODEL, "--version", "1.0.0", "--security-counter", "1")
    key = str(workshop.keys / "targets-1")
    for words in (
        ("add", str(image), *facts, "--contact", contact),
        ("sign", "--yes", "--key", key),
        ("publish",),
    ):
        outcome, _, err = await run_muster(stack, "update", *words)
        assert outcome == 0, err
    await stack.installation.standard([])
    await stack.installation.enroll(["A1"])
    path = f"{MODEL}/1.0.0/firmware.bin"
    async with updating(stack, workshop, tmp_path / "one", "A1"):

        async def says(*running: str) -> bool:
            return [list(each) for each in await running_paths(stack)] == [list(running)]

        await eventually(lambda: says("main"), within=60)
        (device,) = await stack.devices()
        assert contact not in (await run_muster(stack, "devices", "show", device.id))[1]
        await push(stack, workshop, path, "first")
        await eventually(lambda: says(path), within=60)
    _, shown, _ = await run_muster(stack, "devices", "show", device.id)
    assert f"weaknesses to\t{contact}" in shown
    _, told, _ = await run_muster(stack, "devices", "show", device.id, "--json")
    assert json.loads(told)["software"]["vulnerability_contacts"] == [contact]
    assert contact in await device_status(tmp_path / "one")


async def running_paths(stack: Stack) -> list[list[str]]:
    return [sorted(each) for each in await running(stack)]


async def device_status(state: Path) -> str:
    """What `muster-device status` prints."""
    with redirect_stdout(StringIO()) as printed:
        assert await asyncio.to_thread(cli.main, ["status", "--state", str(state)]) == 0
    return printed.getvalue()


async def test_install_and_roll_back(stack: Stack, tmp_path: Path) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    image = b"firmware " * 20_000
    path = await asyncio.to_thread(workshop.publish_image, "1.0.0", image)
    await stack.installation.standard([])
    await stack.installation.enroll(["A1", "A2"])
    async with AsyncExitStack() as agents:
        well = await agents.enter_async_context(updating(stack, workshop, tmp_path / "one", "A1"))
        unwell = await agents.enter_async_context(
            updating(stack, workshop, tmp_path / "two", "A2", UNWELL)
        )

        async def are_members() -> bool:
            states = (tmp_path / "one", tmp_path / "two")
            return all(status.report(each).confirmed_at is not None for each in states)

        await eventually(are_members, within=60)

        async def is_known() -> bool:
            return await running(stack) == [{"main": "0.9"}] * 2

        await eventually(is_known, within=60)
        await push(stack, workshop, path, "first")

        async def is_over() -> bool:
            view = await look(stack, "first")
            return view.at(Progress.INSTALLED) + view.at(Progress.ROLLED_BACK) == 2

        await eventually(is_over, within=60)
        view = await look(stack, "first")
        assert (view.at(Progress.INSTALLED), view.at(Progress.ROLLED_BACK)) == (1, 1)
        assert view.codes == {"health_failed": 1}
        assert runs(well) == image
        assert runs(unwell) is None, "nothing ran before"
    said = status.report(tmp_path / "two").software
    assert said is not None
    assert said.refusal is not None
    assert said.refusal.code == "health_failed"
    assert "the radio is silent" in said.refusal.message
    assert said.running == {"main": "0.9"}
    assert said.unsent_reports == 0
    assert cli.main(["status", "--state", str(tmp_path / "one")]) == 0


async def test_a_damaged_configuration_costs_the_updates_and_not_the_membership(
    stack: Stack, tmp_path: Path
) -> None:
    await stack.installation.standard([])
    await stack.installation.enroll(["A3"])
    state, bundle = tmp_path / "three", tmp_path / "bundle.json"
    await asyncio.to_thread(bundle.write_bytes, write_bundle(stack.bundle()))
    await asyncio.to_thread((state / "update").mkdir, parents=True)
    await asyncio.to_thread((state / "update" / "device.json").write_bytes, b"{damaged")
    argv = ("run", "--state", str(state), "--bundle", str(bundle), "--serial", "A3")
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "device_client", *argv)
    try:
        await eventually(lambda: stack.is_active("A3"))
    finally:
        process.terminate()
        assert await process.wait() == 0
