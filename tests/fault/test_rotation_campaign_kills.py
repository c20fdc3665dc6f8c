"""Kill -9 of the service at every step of a rotation campaign.

In the end each device was ordered once, has followed once, and is counted; or its order is gone.
"""

import contextlib
import itertools
from pathlib import Path

import aiomqtt
import pytest

from broker.core.campaign import (
    CampaignId,
    CampaignInput,
    CampaignState,
    Selection,
    SelectionKind,
)
from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind
from broker.protocol import codec
from broker.protocol.topics import (
    Desired,
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    desired_topic,
    device_topic,
)
from tests.fault.dying_campaign import ORDERING, SETTLING, WITHDRAWING
from tests.support.acting import act
from tests.support.campaigning import (
    campaign,
    change_campaign,
    follow,
    follow_all,
    members,
    next_order,
    renew_by_order,
    start_campaign,
)
from tests.support.members import Holder, connected, prove
from tests.support.signing import confirmation
from tests.support.stack import Stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)


async def dies(stack: Stack, step: str) -> None:
    """Starts the service, which then dies of itself at `step`."""
    await stack.process.dies("dying_campaign", f"{step}:1")


async def group(stack: Stack, place: Path) -> list[Holder]:
    """Three members of their own for each test."""
    return await members(stack, place, *(f"R{next(_numbers)}" for _ in range(3)))


async def begin(stack: Stack, fleet: list[Holder]) -> CampaignId:
    ids = tuple(holder.device_id for holder in fleet)
    return await start_campaign(stack, Selection(SelectionKind.DEVICES, ids=ids))


async def is_in(stack: Stack, number: CampaignId, state: CampaignState) -> bool:
    return (await campaign(stack, number)).state is state


async def ordered(stack: Stack, fleet: list[Holder]) -> list[str]:
    """Whose orders are in the audit log."""
    ids = {holder.device_id for holder in fleet}
    events = await stack.events_of(EventKind.ROTATION_ORDERED)
    return sorted(event.device_id for event in events if event.device_id in ids)


@pytest.mark.parametrize("step", ORDERING)
async def test_each_is_ordered_once_and_the_campaign_ends(
    stack: Stack, step: str, tmp_path: Path
) -> None:
    everyone = step.startswith("listed")
    if everyone:  # who was here before takes no part
        await act(stack, DeviceInput.RETIRE, *(d.id for d in await stack.devices()), within_s=0)
    fleet = await group(stack, tmp_path)
    names = sorted(holder.device_id for holder in fleet)
    await stack.kill_service()
    number = await (start_campaign(stack) if everyone else begin(stack, fleet))
    await dies(stack, step)
    await stack.start_service()
    await follow_all(stack, fleet, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    done = await campaign(stack, number)
    assert (done.total, done.done) == (len(fleet), len(fleet))
    assert await ordered(stack, fleet) == names
    for holder in fleet:
        found = await stack.certificates_of(holder.device_id.removeprefix("lamp-"))
        assert len(found) == 2


@pytest.mark.parametrize("step", SETTLING)
async def test_who_has_followed_is_counted_once(stack: Stack, step: str, tmp_path: Path) -> None:
    fleet = await group(stack, tmp_path)
    number = await begin(stack, fleet)
    renewed = [await renew_by_order(stack, holder, tmp_path) for holder in fleet]
    await stack.kill_service()
    lives = len(stack.process.lines("ready"))
    await stack.process.launch("-m", "tests.fault.dying_campaign", f"{step}:1")
    await eventually(lambda: len(stack.process.lines("ready")) > lives)
    # It dies at its first look at a device that has followed; maybe before it has said so to it.
    with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
        await prove(stack, renewed[0], tmp_path)
    await stack.process.has_died()
    await stack.start_service()
    for holder in renewed:
        await prove(stack, holder, tmp_path)
    await eventually(lambda: is_in(stack, number, CampaignState.DONE))
    done = await campaign(stack, number)
    assert (done.total, done.done, done.settled) == (len(fleet),) * 3


@pytest.mark.parametrize("step", WITHDRAWING)
async def test_a_cancelled_campaign_s_orders_are_taken_back(
    stack: Stack, step: str, tmp_path: Path
) -> None:
    fleet = await group(stack, tmp_path)
    number = await begin(stack, fleet)
    await follow(stack, fleet[0], tmp_path)
    for holder in fleet[1:]:
        await next_order(stack, holder, tmp_path)
    await stack.kill_service()
    await change_campaign(stack, number, CampaignInput.CANCEL)
    await dies(stack, step)
    await stack.start_service()
    await eventually(lambda: is_over(stack, number))
    ended = await campaign(stack, number)
    assert (ended.done, ended.withdrawn, ended.ordered) == (1, 2, 0)
    for holder in fleet[1:]:
        await has_no_order_soon(stack, holder, tmp_path)


async def is_over(stack: Stack, number: CampaignId) -> bool:
    return (await campaign(stack, number)).is_over


async def has_no_order_soon(stack: Stack, holder: Holder, place: Path) -> None:
    await eventually(lambda: has_no_order(stack, holder, place))


async def has_no_order(stack: Stack, holder: Holder, place: Path) -> bool:
    """What is retained comes before the answer to a question that was asked afterwards."""
    rotation = desired_topic(holder.device_id, Desired.ROTATION)
    number = f"proof-{next(_numbers)}"
    proof = confirmation(holder.key, holder.device_id, holder.sha256, number)
    async with connected(stack, holder, place) as connection:
        await connection.peer.hear(rotation)
        asked = device_topic(DeviceOrigin(holder.device_id), Operation.CONFIRM)
        await connection.peer.say(asked, codec.encode(proof))
        while (heard := await connection.peer.next(10)).topic == rotation:
            if heard.payload:
                return False
        return heard.topic == answer_topic(asked, Outcome.ACCEPTED)
