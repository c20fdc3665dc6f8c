"""Campaigns from the operator's wish to the device that followed, on a registry of their own."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.core.campaign import (
    Campaign,
    CampaignInput,
    CampaignState,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.campaign_pace import renew_by
from broker.core.lifecycle import DeviceInput
from broker.core.records import Certificate, EventKind
from broker.protocol import codec, limits
from broker.protocol.messages import EnrollAccepted, RotationOrder
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.services import campaign_runner, campaigns, device_acts
from broker.services.campaign_runner import CampaignRunner
from broker.services.campaigns import Preview, Wanted
from broker.services.problems import Problem, ProblemCode
from tests.support.csrs import fresh_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.succeeding import renew

SECOND = timedelta(seconds=1)
EVERYONE = Selection(SelectionKind.ALL)


@pytest.fixture
def runner(desk: Desk) -> CampaignRunner:
    return CampaignRunner(desk.registry, desk.clock)


async def fleet(desk: Desk, count: int = 3) -> None:
    for number in range(1, count + 1):
        await desk.join(f"A{number}")
    desk.clock.at += SECOND  # what has been issued isn't from the moment of any start


def named(*ids: str) -> Selection:
    return Selection(SelectionKind.DEVICES, ids=tuple(DeviceId(each) for each in ids))


async def start(desk: Desk, selection: Selection = EVERYONE, **changes: object) -> Campaign:
    wanted = replace(Wanted(selection, per_minute=60), **changes)  # type: ignore[arg-type]
    return await campaigns.start(desk.registry, desk.clock, wanted)


async def run(desk: Desk, runner: CampaignRunner, seconds: int) -> Campaign:
    """A step each second; the newest campaign then."""
    for _ in range(seconds):
        await runner.advance()
        desk.clock.at += SECOND
    return await campaigns.find(desk.registry, None)


async def order_of(desk: Desk, device_id: str) -> RotationOrder | None:
    """What is retained for the device."""
    kept = await desk.read("retained", desired_topic(DeviceId(device_id), Desired.ROTATION))
    if kept is None or not kept.payload:
        return None
    return codec.decode(kept.payload, RotationOrder)


async def follow(desk: Desk, device_id: str) -> Certificate:
    """The device renews with its order's version, and proves what it got."""
    order = await order_of(desk, device_id)
    version = order.version if order else None
    reply = await renew(desk, fresh_key(), device_id, order=version)
    codec.decode(reply.payload, EnrollAccepted, limits.MAX_ANSWER)
    newest = (await desk.certificates(device_id))[-1]
    await desk.confirm(device_id, newest.certificate_sha256)
    return newest


async def act(desk: Desk, what: DeviceInput, device_id: str) -> None:
    wanted = device_acts.Wanted(what)
    devices = [(DeviceId(device_id), f"{what}-{device_id}")]
    async for _ in device_acts.carry_out(desk.registry, desk.clock, devices, wanted):
        pass


async def rows(desk: Desk, campaign: Campaign, state: RotationState) -> list[Rotation]:
    found: list[Rotation] = await desk.read("rotations", campaign.id, state, "", 1000)
    return found


async def kinds(desk: Desk) -> list[str]:
    return [e.kind for e in await desk.events() if e.kind.startswith("rotation.")]


async def test_a_campaign_orders_at_its_pace_and_ends_when_all_have_followed(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk)
    await start(desk, reason="new hardware policy")
    first = await run(desk, runner, 1)
    assert (first.total, first.ordered, first.waiting, first.is_listed) == (3, 1, 2, True)
    order = await order_of(desk, "lamp-A1")
    assert order is not None
    assert order.ordered_at is not None
    assert order.renew_by == renew_by(first, order.ordered_at)
    assert await order_of(desk, "lamp-A2") is None
    await run(desk, runner, 2)
    for name in ("lamp-A1", "lamp-A2", "lamp-A3"):
        await follow(desk, name)
    campaign = await run(desk, runner, 2)
    assert (campaign.state, campaign.done, campaign.ordered) == (CampaignState.DONE, 3, 0)
    assert campaign.ended_at is not None
    assert campaign.is_over
    # A device that begins anew, reclaimed or reset, would take it for a new one.
    assert await order_of(desk, "lamp-A1") is None
    assert await desk.read("active_campaigns") == []
    told = ["rotation.started", *["rotation.ordered"] * 3, "rotation.done"]
    assert await kinds(desk) == told


async def test_an_order_is_followed_only_by_a_proven_certificate(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 1)
    await start(desk)
    await run(desk, runner, 1)
    order = await order_of(desk, "lamp-A1")
    assert order is not None
    await renew(desk, fresh_key(), order=order.version)
    assert (await run(desk, runner, 3)).ordered == 1
    pending = (await desk.certificates())[-1]
    await desk.confirm("lamp-A1", pending.certificate_sha256)
    assert (await run(desk, runner, 2)).state is CampaignState.DONE


async def test_who_renews_by_itself_has_followed_or_needs_no_order(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 3)
    await start(desk, per_minute=1)
    await run(desk, runner, 1)  # the first is ordered
    for name in ("lamp-A1", "lamp-A2"):
        await renew(desk, fresh_key(), name)
        await desk.confirm(name, (await desk.certificates(name))[-1].certificate_sha256)
    campaign = await run(desk, runner, 120)
    assert (campaign.done, campaign.ordered) == (2, 1)
    assert await order_of(desk, "lamp-A2") is None
    assert await order_of(desk, "lamp-A3") is not None


async def test_who_has_moved_already_needs_no_order(desk: Desk, runner: CampaignRunner) -> None:
    await fleet(desk, 3)
    oldest = (await desk.certificates("lamp-A1"))[0].not_before
    campaign = await start(desk, fresh_from=oldest)
    campaign = await run(desk, runner, 3)
    assert (campaign.state, campaign.done) == (CampaignState.DONE, 3)
    assert EventKind.ROTATION_ORDERED not in await kinds(desk)


async def test_those_who_need_no_order_hold_nobody_up(desk: Desk, runner: CampaignRunner) -> None:
    await fleet(desk, 5)
    for name in ("lamp-A1", "lamp-A2", "lamp-A4"):
        await act(desk, DeviceInput.RETIRE, name)
    names = tuple(f"lamp-A{number}" for number in range(1, 6))
    await start(desk, named(*names), per_minute=1)
    campaign = await run(desk, runner, 1)
    # One interval, one order: and those in front of it and behind it who need none.
    assert (campaign.dropped, campaign.ordered, campaign.waiting) == (3, 1, 1)
    assert await order_of(desk, "lamp-A3") is not None
    assert await order_of(desk, "lamp-A5") is None


async def test_who_is_put_out_drops_out_and_only_a_suspended_one_is_waited_for(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 4)
    await start(desk)
    await run(desk, runner, 3)
    await act(desk, DeviceInput.REVOKE, "lamp-A1")
    await act(desk, DeviceInput.SUSPEND, "lamp-A2")
    await act(desk, DeviceInput.RETIRE, "lamp-A4")  # before its turn
    campaign = await run(desk, runner, 2)
    assert (campaign.dropped, campaign.ordered, campaign.waiting) == (2, 2, 0)
    assert await order_of(desk, "lamp-A1") is None
    assert await order_of(desk, "lamp-A2") is not None
    await follow(desk, "lamp-A3")
    assert (await run(desk, runner, 2)).state is CampaignState.RUNNING
    await act(desk, DeviceInput.RESUME, "lamp-A2")
    await follow(desk, "lamp-A2")
    campaign = await run(desk, runner, 2)
    assert (campaign.state, campaign.done, campaign.dropped) == (CampaignState.DONE, 2, 2)


async def test_who_was_suspended_or_unproven_at_the_start_is_ordered_when_it_is_a_member(
    desk: Desk, runner: CampaignRunner
) -> None:
    """Else it keeps the key for which the campaign was started."""
    await fleet(desk, 3)
    await desk.enroll("A5")
    await act(desk, DeviceInput.SUSPEND, "lamp-A1")
    desk.clock.at += SECOND
    await start(desk, Selection(SelectionKind.CLAIM, "batch-7"))
    await act(desk, DeviceInput.SUSPEND, "lamp-A3")  # before its turn
    campaign = await run(desk, runner, 3)
    assert (campaign.total, campaign.ordered, campaign.waiting) == (4, 1, 3)
    await follow(desk, "lamp-A2")
    assert (await run(desk, runner, 2)).state is CampaignState.RUNNING
    for name in ("lamp-A1", "lamp-A3"):
        await act(desk, DeviceInput.RESUME, name)
    unproven = (await desk.certificates("lamp-A5"))[-1]
    await desk.confirm("lamp-A5", unproven.certificate_sha256)
    campaign = await run(desk, runner, 4)
    assert (campaign.ordered, campaign.waiting) == (3, 0)
    for name in ("lamp-A1", "lamp-A3", "lamp-A5"):
        await follow(desk, name)
    campaign = await run(desk, runner, 2)
    assert (campaign.state, campaign.done) == (CampaignState.DONE, 4)


async def test_who_never_comes_ends_as_left_out(desk: Desk, runner: CampaignRunner) -> None:
    await fleet(desk, 1)
    await desk.enroll("A5")
    await act(desk, DeviceInput.SUSPEND, "lamp-A1")
    await start(desk)
    assert (await run(desk, runner, 2)).waiting == 2
    await act(desk, DeviceInput.REVOKE, "lamp-A1")
    desk.clock.at += CONFIRM_WITHIN
    await desk.lapsing.revoke_unconfirmed()
    campaign = await run(desk, runner, 2)
    assert (campaign.state, campaign.dropped) == (CampaignState.DONE, 2)


async def test_those_who_are_held_hold_nobody_up(
    desk: Desk, runner: CampaignRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_runner, "_PAGE", 2)
    monkeypatch.setattr(campaign_runner, "_FURTHER", 1)
    await fleet(desk, 5)
    for number in range(1, 5):
        await act(desk, DeviceInput.SUSPEND, f"lamp-A{number}")
    await start(desk, per_minute=6000)
    assert (await run(desk, runner, 4)).ordered == 1
    await act(desk, DeviceInput.RESUME, "lamp-A1")
    campaign = await run(desk, runner, 4)
    assert (campaign.ordered, campaign.waiting) == (2, 3)
    assert await order_of(desk, "lamp-A1") is not None


async def test_a_campaign_that_waits_for_the_operator_alone_writes_nothing(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 2)
    await act(desk, DeviceInput.SUSPEND, "lamp-A1")
    await start(desk, per_minute=6000)
    await run(desk, runner, 2)
    await follow(desk, "lamp-A2")
    before = await run(desk, runner, 2)
    assert await run(desk, runner, 10) == before
    assert before.waiting == 1


async def test_who_is_revoked_finds_no_order_when_it_is_reclaimed(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 1)
    await start(desk)
    await run(desk, runner, 1)
    assert await order_of(desk, "lamp-A1") is not None
    await act(desk, DeviceInput.REVOKE, "lamp-A1")  # the service is down
    assert await order_of(desk, "lamp-A1") is None


async def test_a_paused_campaign_orders_nobody_and_counts_who_follows(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 3)
    campaign = await start(desk)
    await run(desk, runner, 1)
    for _ in range(2):
        paused = await campaigns.change(desk.registry, desk.clock, campaign.id, CampaignInput.PAUSE)
        assert paused.state is CampaignState.PAUSED
    await follow(desk, "lamp-A1")
    campaign = await run(desk, runner, 30)
    assert (campaign.done, campaign.ordered, campaign.waiting) == (1, 0, 2)
    await campaigns.change(desk.registry, desk.clock, campaign.id, CampaignInput.RESUME)
    campaign = await run(desk, runner, 1)
    assert (campaign.state, campaign.ordered) == (CampaignState.RUNNING, 2)
    told = [kind for kind in await kinds(desk) if kind != EventKind.ROTATION_ORDERED]
    assert told == ["rotation.started", "rotation.paused", "rotation.resumed"]


async def test_cancelling_takes_back_what_was_not_followed(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 4)
    campaign = await start(desk)
    await run(desk, runner, 3)
    await follow(desk, "lamp-A1")
    await campaigns.change(desk.registry, desk.clock, campaign.id, CampaignInput.CANCEL)
    campaign = await run(desk, runner, 1)
    assert (campaign.done, campaign.withdrawn, campaign.waiting) == (1, 2, 1)
    assert campaign.is_over
    assert await order_of(desk, "lamp-A2") is None
    assert await order_of(desk, "lamp-A3") is None
    assert (await kinds(desk)).count(EventKind.ROTATION_WITHDRAWN) == 2
    with pytest.raises(Problem) as refused:
        await campaigns.change(desk.registry, desk.clock, campaign.id, CampaignInput.RESUME)
    assert refused.value.code is ProblemCode.CAMPAIGN_OVER


async def test_a_later_campaign_s_order_outlives_the_cancelling_of_an_earlier_one(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 1)
    earlier = await start(desk)
    await run(desk, runner, 1)
    first = await order_of(desk, "lamp-A1")
    await start(desk, reason="again")
    await run(desk, runner, 1)
    second = await order_of(desk, "lamp-A1")
    assert first is not None
    assert second is not None
    assert second.version > first.version
    await campaigns.change(desk.registry, desk.clock, earlier.id, CampaignInput.CANCEL)
    await run(desk, runner, 1)
    assert await order_of(desk, "lamp-A1") == second
    await follow(desk, "lamp-A1")
    assert (await run(desk, runner, 2)).state is CampaignState.DONE


async def test_one_renewal_follows_the_orders_of_two_campaigns(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 1)
    await start(desk)
    await run(desk, runner, 1)
    await start(desk, reason="again")
    await run(desk, runner, 1)
    await follow(desk, "lamp-A1")
    await run(desk, runner, 2)
    both = await desk.read("campaigns", 10)
    assert [each.state for each in both] == [CampaignState.DONE, CampaignState.DONE]


async def test_the_next_wave_waits_for_this_one(desk: Desk, runner: CampaignRunner) -> None:
    await fleet(desk, 4)
    await start(desk, per_minute=6000, wave_size=2)
    campaign = await run(desk, runner, 30)
    assert (campaign.ordered, campaign.waiting, campaign.wave) == (2, 2, 1)
    await follow(desk, "lamp-A1")
    assert (await run(desk, runner, 5)).wave == 1
    await follow(desk, "lamp-A2")
    campaign = await run(desk, runner, 2)
    assert (campaign.ordered, campaign.done, campaign.wave) == (2, 2, 2)


async def test_a_wave_that_doesn_t_answer_holds_nobody_up_for_ever(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 3)
    await start(desk, per_minute=6000, wave_size=2)
    await run(desk, runner, 2)
    desk.clock.at += timedelta(hours=1)
    campaign = await run(desk, runner, 1)
    assert (campaign.ordered, campaign.wave) == (3, 2)


async def test_a_service_that_was_away_doesn_t_make_up_for_it_at_once(
    desk: Desk, runner: CampaignRunner
) -> None:
    await fleet(desk, 5)
    await start(desk, per_minute=12)
    await run(desk, runner, 1)
    desk.clock.at += timedelta(days=1)
    # Whatever it knew is gone with it.
    campaign = await run(desk, CampaignRunner(desk.registry, desk.clock), 1)
    assert campaign.ordered == 1 + 2


@pytest.mark.parametrize("pages", [1, 2])
async def test_small_pages_lead_to_the_same(
    desk: Desk, pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign_runner, "_LISTED_A_PAGE", pages)
    monkeypatch.setattr(campaign_runner, "_PAGE", pages)
    runner = CampaignRunner(desk.registry, desk.clock)
    await fleet(desk, 5)
    await start(desk, per_minute=6000)
    campaign = await run(desk, runner, 6)
    assert (campaign.total, campaign.ordered) == (5, 5)
    for number in (5, 3, 1, 2, 4):
        await follow(desk, f"lamp-A{number}")
    campaign = await run(desk, runner, 8)
    assert (campaign.state, campaign.done) == (CampaignState.DONE, 5)


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (named("lamp-A1", "lamp-A2", "lamp-A1"), Preview(2, 0, 0)),
        (named("lamp-A3", "lamp-A4"), Preview(0, 1, 1)),
        (Selection(SelectionKind.GROUP, "lamps"), Preview(2, 1, 1)),
        (Selection(SelectionKind.CLAIM, "batch-7"), Preview(2, 1, 1)),
        (EVERYONE, Preview(2, 1, 1)),
    ],
)
async def test_what_is_selected(
    desk: Desk, runner: CampaignRunner, selection: Selection, expected: Preview
) -> None:
    await fleet(desk, 4)
    await act(desk, DeviceInput.SUSPEND, "lamp-A3")
    await act(desk, DeviceInput.REVOKE, "lamp-A4")
    assert await campaigns.preview(desk.registry, Wanted(selection)) == expected
    assert await desk.read("campaigns", 10) == []
    await start(desk, selection)
    campaign = await run(desk, runner, 4)
    assert (campaign.ordered, campaign.waiting) == (expected.members, expected.held)
    ordered = [row.device_id for row in await rows(desk, campaign, RotationState.ORDERED)]
    assert ordered == ["lamp-A1", "lamp-A2"][: expected.members]


@pytest.mark.parametrize(
    ("wanted", "code"),
    [
        (Wanted(named("nobody")), ProblemCode.DEVICE_UNKNOWN),
        (Wanted(Selection(SelectionKind.GROUP, "ovens")), ProblemCode.GROUP_UNKNOWN),
        (
            Wanted(Selection(SelectionKind.CLAIM, "batch-8")),
            ProblemCode.CLAIM_CERTIFICATE_UNKNOWN,
        ),
        (Wanted(named()), ProblemCode.VALUE_INVALID),
        (Wanted(named(*("x" for _ in range(campaigns.MAX_NAMED + 1)))), ProblemCode.VALUE_INVALID),
        (Wanted(EVERYONE, per_minute=0), ProblemCode.VALUE_INVALID),
        (Wanted(EVERYONE, wave_size=0), ProblemCode.VALUE_INVALID),
        (Wanted(EVERYONE, reason="x" * 201), ProblemCode.VALUE_INVALID),
    ],
)
async def test_what_can_t_be_wanted(desk: Desk, wanted: Wanted, code: ProblemCode) -> None:
    for attempt in (
        campaigns.preview(desk.registry, wanted),
        campaigns.start(desk.registry, desk.clock, wanted),
    ):
        with pytest.raises(Problem) as refused:
            await attempt
        assert refused.value.code is code
    assert await desk.read("campaigns", 10) == []


async def test_an_unknown_campaign(desk: Desk) -> None:
    for number in (None, 7):
        with pytest.raises(Problem) as refused:
            await campaigns.find(desk.registry, number)
        assert refused.value.code is ProblemCode.CAMPAIGN_UNKNOWN


async def test_a_transaction_that_was_run_twice_starts_one(desk: Desk) -> None:
    await fleet(desk, 1)
    wanted, now = Wanted(EVERYONE), desk.clock.now()
    for _ in range(2):
        await desk.registry.write(lambda tx: campaigns.begin(tx, wanted, now))
    assert len(await desk.read("campaigns", 10)) == 1
