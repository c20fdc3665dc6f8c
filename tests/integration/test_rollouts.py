"""Rollouts over real brokers: pushed, told, reported, counted; and told again to who forgot
everything."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

from broker.composition.registries import open_registry
from broker.core.rollout import Progress, RolloutInput, RolloutState, Selection
from broker.core.rollout_pace import StopRule
from broker.operating.updating import update_repository
from broker.protocol.messages import Rejected
from broker.protocol.topics import metadata_topic
from broker.protocol.updates import Phase, ReportAccepted
from broker.protocol.zones import Zone
from broker.services import rollouts
from broker.services.rollouts import Push, RolloutView
from broker.settings import BrokerKind
from tests.support.acting import joined
from tests.support.peers import peer
from tests.support.stack import Stack
from tests.support.update_devices import update_device, workshop_of
from tests.support.update_workshop import SetClock, Workshop
from tests.support.waiting import eventually


async def push(stack: Stack, workshop: Workshop, *paths: str, name: str = "r1") -> None:
    published = update_repository(workshop.home, None).targets()
    plan = rollouts.planned(
        Push(name, paths, Selection(everyone=True), stop=StopRule(above=1.0)),
        published,
        SetClock().now(),
    )
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await rollouts.start(registry, SetClock(), plan)


async def look(stack: Stack, name: str = "r1") -> RolloutView:
    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await rollouts.look(registry, name)


async def forget_everything(stack: Stack) -> None:
    """The fleet's broker comes back without its memory."""
    if stack.plan.brokers is BrokerKind.EMBEDDED:
        await stack.stop_service()
        await stack.start_service()
    else:
        await stack.brokers[Zone.FLEET].restart()


async def test_a_rollout_from_the_push_to_the_last_report(stack: Stack, tmp_path: Path) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    path = await asyncio.to_thread(workshop.publish_image)
    await stack.installation.standard([])
    clients = await joined(stack, tmp_path, "A1", "A2", "A3")
    async with AsyncExitStack() as connected:
        devices = [
            await connected.enter_async_context(update_device(stack, client)) for client in clients
        ]
        await push(stack, workshop, path)
        told = [await device.told() for device in devices]
        for device, assignment in zip(devices, told, strict=True):
            assert assignment is not None
            assert (assignment.device_id, assignment.targets[0].path) == (device.id, path)
        (one, two, three), (first, second, third) = devices, told
        assert first is not None
        assert second is not None
        assert third is not None
        assert isinstance(await one.say(first, Phase.DOWNLOADING), ReportAccepted)
        assert isinstance(await one.say(first, Phase.INSTALLED), ReportAccepted)
        assert await one.told() is None
        await two.say(second, Phase.ROLLED_BACK, code="health_check_failed")
        refused = await three.say(third, Phase.INSTALLED, sequence=9)
        assert isinstance(refused, Rejected)
        assert refused.code == "assignment_unknown"
        foreign = await three.say(third, Phase.INSTALLED, device_id=one.id)
        assert isinstance(foreign, Rejected)
        assert foreign.code == "report_device_mismatch"
        await three.say(third, Phase.INSTALLED)

    async def is_done() -> bool:
        return (await look(stack)).rollout.state is RolloutState.DONE

    await eventually(is_done)
    view = await look(stack)
    assert (view.at(Progress.INSTALLED), view.at(Progress.ROLLED_BACK)) == (2, 1)
    assert view.codes == {"health_check_failed": 1}


async def test_a_device_that_was_away_finds_what_it_is_told_after_the_broker_forgot_all(
    stack: Stack, tmp_path: Path
) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    path = await asyncio.to_thread(workshop.publish_image)
    await stack.installation.standard([])
    (client,) = await joined(stack, tmp_path, "A1")
    await push(stack, workshop, path)

    async def is_told() -> bool:
        return (await look(stack)).at(Progress.ASSIGNED) == 1

    await eventually(is_told)
    await forget_everything(stack)
    names = sorted(update_repository(workshop.home, None).files())
    assert "timestamp.json" in names
    assert "1.root.json" in names
    async with update_device(stack, client) as device:
        assignment = await device.told()
        assert assignment is not None
        assert assignment.targets[0].path == path
    files = update_repository(workshop.home, None).files()
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        await connection.hear(metadata_topic("+"))
        heard: dict[str, bytes] = {}
        while len(heard) < len(names):
            message = await connection.next()
            heard[message.topic] = message.payload
    assert heard == {metadata_topic(name): content for name, content in files.items()}


async def test_a_cancelled_rollout_calls_back_who_may_still_switch(
    stack: Stack, tmp_path: Path
) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    path = await asyncio.to_thread(workshop.publish_image)
    await stack.installation.standard([])
    (client,) = await joined(stack, tmp_path, "A1")
    async with update_device(stack, client) as device:
        await push(stack, workshop, path)
        first = await device.told()
        assert first is not None
        await device.say(first, Phase.DOWNLOADING)
        async with open_registry(stack.home, stack.installation.settings) as registry:
            await rollouts.steer(registry, SetClock(), "r1", RolloutInput.CANCEL, "wrong one")
        second = await device.told()
        assert second is not None
        assert (second.sequence, second.targets) == (2, ())
        await device.say(second, Phase.CANCELLED)
        assert await device.told() is None
    assert (await look(stack)).at(Progress.CANCELLED) == 1
