"""Campaigns over real brokers, with members that follow their orders by the wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from broker.core.campaign import (
    CampaignId,
    CampaignInput,
    CampaignState,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.lifecycle import DeviceInput, DeviceState
from broker.core.records import EventKind
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import act, is_admitted, run_muster
from tests.support.campaigning import (
    campaign,
    change_campaign,
    follow,
    follow_all,
    members,
    next_order,
    rotations,
    start_campaign,
)
from tests.support.device_agents import device
from tests.support.members import as_client
from tests.support.peers import peer
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.waiting import eventually


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, plan) as running:
        await running.installation.standard([])
        yield running


async def test_a_fleet_rotates(stack: Stack, tmp_path: Path) -> None:
    fleet = await members(stack, tmp_path, "A1", "B2", "C3")
    number = await start_campaign(stack)
    renewed = await follow_all(stack, fleet, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    assert {old.sha256 for old in fleet}.isdisjoint(new.sha256 for new in renewed)
    told = await stack.events_of(EventKind.ROTATION_STARTED, EventKind.ROTATION_DONE)
    assert [event.kind for event in told] == ["rotation.started", "rotation.done"]
    (started, _) = told
    assert "a test" in (started.detail or "")
    for holder in renewed:
        (_, newest) = await stack.certificates_of(holder.device_id.removeprefix("lamp-"))
        assert newest.rotation_order is not None


async def test_who_was_away_finds_the_order_when_it_comes_back(
    stack: Stack, tmp_path: Path
) -> None:
    online, away = await members(stack, tmp_path, "A1", "B2")
    number = await start_campaign(stack)
    await follow(stack, online, tmp_path)
    await eventually(lambda: counts(stack, number, done=1, ordered=1))
    # A broker that dies has forgotten, and is told again. An embedded one dies with its service.
    if stack.plan.brokers is BrokerKind.MOSQUITTO:
        await stack.brokers[Zone.FLEET].restart()
    else:
        await stack.stop_service()
        await stack.start_service()
    await follow(stack, away, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    ordered = await stack.events_of(EventKind.ROTATION_ORDERED)
    assert sorted(event.device_id or "" for event in ordered) == ["lamp-A1", "lamp-B2"]


async def test_a_cancelled_campaign_s_orders_are_gone(stack: Stack, tmp_path: Path) -> None:
    followed, slow = await members(stack, tmp_path, "A1", "B2")
    number = await start_campaign(stack)
    await follow(stack, followed, tmp_path)
    await next_order(stack, slow, tmp_path)
    await change_campaign(stack, number, CampaignInput.CANCEL)
    await eventually(lambda: counts(stack, number, done=1, ordered=0))

    async def forgotten() -> bool:
        topic = desired_topic(slow.device_id, Desired.ROTATION)
        client = as_client(stack, slow, tmp_path)
        async with peer(stack.ports[Zone.FLEET], client) as connection:
            await connection.hear(topic)
            try:
                return (await connection.next(within=0.3)).payload == b""
            except TimeoutError:
                return True

    await eventually(forgotten)
    states = {name: row.state for name, row in (await rotations(stack, number)).items()}
    assert states == {
        followed.device_id: RotationState.DONE,
        slow.device_id: RotationState.WITHDRAWN,
    }
    assert await is_admitted(stack, as_client(stack, slow, tmp_path))


async def test_who_is_revoked_meanwhile_drops_out(stack: Stack, tmp_path: Path) -> None:
    good, thief = await members(stack, tmp_path, "A1", "B2")
    number = await start_campaign(stack)
    await next_order(stack, thief, tmp_path)
    await act(stack, DeviceInput.REVOKE, thief.device_id)
    await follow(stack, good, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    done = await campaign(stack, number)
    assert (done.done, done.dropped) == (1, 1)


async def test_only_the_selected_ones_are_ordered(stack: Stack, tmp_path: Path) -> None:
    wanted, other = await members(stack, tmp_path, "A1", "B2")
    selection = Selection(SelectionKind.DEVICES, ids=(wanted.device_id,))
    number = await start_campaign(stack, selection)
    await follow(stack, wanted, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    with pytest.raises(TimeoutError):
        await next_order(stack, other, tmp_path, within=0.3)


@asynccontextmanager
async def agents(stack: Stack, place: Path, *serials: str) -> AsyncIterator[None]:
    """Device agents that run until the end of the block."""
    await stack.installation.enroll(serials)
    with ExitStack() as opened:
        made = [
            opened.enter_context(device(place / serial, stack.bundle(), serial, timing=STUBBORN))
            for serial in serials
        ]
        running = [asyncio.create_task(agent.run()) for agent, _ in made]
        try:
            yield
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)


async def test_device_agents_follow_and_stay(stack: Stack, tmp_path: Path) -> None:
    serials = ("A1", "B2", "C3")
    async with agents(stack, tmp_path, *serials):
        for serial in serials:
            await eventually(partial(stack.is_active, serial), within=60)
        for wanted in (2, 3):
            number = await start_campaign(stack, wave=2)
            await eventually(partial(is_in, stack, number, CampaignState.DONE), within=60)
            for serial in serials:
                assert len(await stack.certificates_of(serial)) == wanted
    for serial in serials:
        assert (await stack.device(serial)).state is DeviceState.ACTIVE


async def test_an_operator_watches_it_in_a_terminal(stack: Stack, tmp_path: Path) -> None:
    (lamp,) = await members(stack, tmp_path, "A1")
    status, out, err = await run_muster(stack, "rotate", "start", "--all", "--dry-run", "--json")
    assert (status, json.loads(out)) == (0, {"members": 1, "held": 0, "left_out": 0}), err
    status, out, err = await run_muster(stack, "rotate", "start", "--all", "--reason", "drill")
    assert (status, out) == (0, "campaign 1\n"), err
    await follow(stack, lamp, tmp_path)
    status, out, err = await run_muster(stack, "rotate", "status", "--watch", "--json")
    assert status == 0, err
    told = json.loads(out)
    assert (told["state"], told["done"], told["reason"]) == ("done", 1, "drill")


async def test_a_leaked_claim_certificate_has_its_devices_rotate(
    stack: Stack, tmp_path: Path
) -> None:
    (lamp,) = await members(stack, tmp_path, "A1")
    status, _, err = await run_muster(stack, "claim-cert", "revoke", "batch-7", "--rotate-devices")
    assert status == 0, err
    await follow(stack, lamp, tmp_path)
    status, out, err = await run_muster(stack, "rotate", "status", "1", "--watch", "--json")
    told = json.loads(out)
    assert (told["state"], told["selected_by"], told["selected"]) == ("done", "claim", "batch-7")


async def test_who_was_suspended_when_the_claim_certificate_leaked_rotates_when_it_is_resumed(
    stack: Stack, tmp_path: Path
) -> None:
    lamp, other = await members(stack, tmp_path, "A1", "B2")
    await act(stack, DeviceInput.SUSPEND, other.device_id)
    revoking = ("claim-cert", "revoke", "batch-7", "--rotate-devices")
    status, _, err = await run_muster(stack, *revoking)
    assert status == 0, err
    assert "without a proven certificate: 1 device." in err
    await follow(stack, lamp, tmp_path)
    number = CampaignId(1)
    await eventually(lambda: counts(stack, number, done=1, ordered=0))
    _, _, err = await run_muster(stack, *revoking)
    assert "Campaign 1 is running for its devices already: 1 of 2 are done with" in err
    await act(stack, DeviceInput.RESUME, other.device_id)
    await follow(stack, other, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    assert (await campaign(stack, number)).done == 2


async def test_a_device_that_begins_anew_follows_no_order_of_before(
    stack: Stack, tmp_path: Path
) -> None:
    (lamp,) = await members(stack, tmp_path, "A1")
    number = await start_campaign(stack)
    await follow(stack, lamp, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    await act(stack, DeviceInput.REVOKE, lamp.device_id)
    await act(stack, DeviceInput.RECLAIM, lamp.device_id)
    (anew,) = await members(stack, tmp_path, "A1")
    with pytest.raises(TimeoutError):
        await next_order(stack, anew, tmp_path, within=1.0)


async def is_in(stack: Stack, number: CampaignId, state: CampaignState) -> bool:
    return (await campaign(stack, number)).state is state


async def counts(stack: Stack, number: CampaignId, done: int, ordered: int) -> bool:
    found = await campaign(stack, number)
    return (found.done, found.ordered) == (done, ordered)
