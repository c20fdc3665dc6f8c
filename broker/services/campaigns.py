"""Rotation campaigns, as they are started and steered; the running service carries them out.

Whoever has devices renew their certificates does it by a campaign: an operator by `muster rotate`,
a leaked claim certificate by what was claimed with it, and the rollover of an authority by all
devices. `begin` starts one inside a transaction of the caller's, beside what else belongs to it:

    campaign = begin(tx, Wanted(Selection(SelectionKind.ALL), fresh_from=since_when), now)

`fresh_from` spares the devices that have moved already: those with a proven certificate that is
valid from that moment, or from a later one. `find` says how far it is, and `change` pauses, resumes
and cancels it. Nothing has to be kept in memory meanwhile (`broker.services.campaign_runner`).
"""

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.core.campaign import (
    CAMPAIGN_TRANSITIONS,
    Campaign,
    CampaignId,
    CampaignInput,
    CampaignState,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
    counted,
    next_campaign_state,
)
from broker.core.campaign_pace import MAX_PER_MINUTE
from broker.core.certificate_profile import BACKDATING
from broker.core.lifecycle import MEMBERS
from broker.core.records import Event, EventKind
from broker.core.rotation_policy import HELD
from broker.ports.clock import Clock
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry, WriteTransaction
from broker.protocol.names import ClaimName, GroupName
from broker.services.device_acts import MAX_REASON
from broker.services.problems import (
    Problem,
    ProblemCode,
    unknown_claim_certificate,
    unknown_device,
    unknown_group,
)

COUNTER = "campaign"
"""Registry counter: the number of the campaign that was started last."""
MAX_NAMED = 10_000
"""Devices that are named one by one; larger selections are listed in pages."""
PER_MINUTE = 60
_LOOKED_AT = 1000

EVENTS = {
    CampaignInput.PAUSE: EventKind.ROTATION_PAUSED,
    CampaignInput.RESUME: EventKind.ROTATION_RESUMED,
    CampaignInput.CANCEL: EventKind.ROTATION_CANCELLED,
}


@dataclass(frozen=True)
class Wanted:
    """The campaign that is asked for."""

    selection: Selection
    per_minute: int = PER_MINUTE
    wave_size: int | None = None
    reason: str | None = None
    fresh_from: datetime | None = None
    """Devices with a proven certificate that is valid from then on needn't renew. None means those
    whose certificate was issued after the start, by the service's clock."""


@dataclass(frozen=True)
class Preview:
    """Whom a campaign would be about, as things stand."""

    members: int
    held: int
    """Suspended, or without a proven certificate: ordered when they're members."""
    others: int
    """Devices of the selection that hold no certificate to renew, and are left out."""


async def preview(registry: Registry, wanted: Wanted) -> Preview:
    """How many devices it would be; nothing is changed.

    Raises:
        Problem: as `begin`.
    """

    def work(view: ReadTransaction) -> Preview:
        _check(view, wanted)
        return _preview(view, wanted.selection)

    return await registry.read(work)


async def start(registry: Registry, clock: Clock, wanted: Wanted) -> Campaign:
    """As `begin`, in a transaction of its own; durable on return."""
    now = clock.now()
    return await registry.write(lambda tx: begin(tx, wanted, now))


def begin(tx: WriteTransaction, wanted: Wanted, now: datetime) -> Campaign:
    """A new campaign, which the service takes up within a second.

    The same wanted at the same moment is one: a transaction may be run twice.

    Raises:
        Problem: DEVICE_UNKNOWN, GROUP_UNKNOWN, CLAIM_CERTIFICATE_UNKNOWN or VALUE_INVALID.
    """
    _check(tx, wanted)
    chosen = replace(wanted.selection, ids=())
    for newest in tx.campaigns(1):
        if (newest.created_at, newest.selection) == (now, chosen):
            return newest
    campaign = Campaign(
        id=CampaignId(tx.raise_counter(COUNTER)),
        selection=chosen,
        per_minute=wanted.per_minute,
        wave_size=wanted.wave_size,
        created_at=now,
        fresh_from=wanted.fresh_from or now - BACKDATING,
        # One interval back, so that the first order is given at once.
        paced_to=now - timedelta(minutes=1) / wanted.per_minute,
        reason=wanted.reason,
        is_listed=wanted.selection.kind is SelectionKind.DEVICES,
    )
    # Its rows refer to it: it has to be there before them.
    tx.save_campaign(campaign)
    for device_id in dict.fromkeys(wanted.selection.ids):
        row = Rotation(campaign.id, device_id)
        campaign = counted(campaign, None, row)
        tx.save_rotation(row)
    tx.save_campaign(campaign)
    tx.add_event(event(campaign, EventKind.ROTATION_STARTED, now))
    return campaign


async def change(
    registry: Registry, clock: Clock, campaign_id: int, happens: CampaignInput
) -> Campaign:
    """The campaign after PAUSE, RESUME or CANCEL; doing it again changes nothing.

    Raises:
        Problem: CAMPAIGN_UNKNOWN, or CAMPAIGN_OVER when it has ended.
    """

    def work(tx: WriteTransaction) -> Campaign:
        campaign = known(tx, campaign_id)
        if campaign.state in _leads_to(happens):
            return campaign
        if (campaign.state, happens) not in CAMPAIGN_TRANSITIONS:
            raise _over(campaign)
        return steer(tx, campaign, happens, clock.now())

    return await registry.write(work)


def steer(
    tx: WriteTransaction, campaign: Campaign, happens: CampaignInput, now: datetime
) -> Campaign:
    """The campaign in its next state, kept with its audit event.

    Raises:
        TransitionError: it can't happen to it.
    """
    state = next_campaign_state(campaign.state, happens)
    has_ended = state in (CampaignState.CANCELLED, CampaignState.DONE)
    changed = replace(campaign, state=state, ended_at=now if has_ended else None)
    tx.save_campaign(changed)
    tx.add_event(event(changed, EVENTS.get(happens, EventKind.ROTATION_DONE), now))
    return changed


async def find(registry: Registry, campaign_id: int | None) -> Campaign:
    """The campaign of this number, or the newest one.

    Raises:
        Problem: CAMPAIGN_UNKNOWN.
    """

    def work(view: ReadTransaction) -> Campaign:
        if campaign_id is not None:
            return known(view, campaign_id)
        newest = view.campaigns(1)
        if not newest:
            raise Problem(
                ProblemCode.CAMPAIGN_UNKNOWN,
                "There never was a campaign.",
                "Start one: 'muster rotate start --group NAME'.",
            )
        return newest[0]

    return await registry.read(work)


async def begun(
    registry: Registry, selection: Selection, since: datetime | None
) -> Campaign | None:
    """The newest campaign for this selection that goes on, or was carried out after `since`.

    With `since` None, only one that goes on. One that was cancelled is none.
    """

    def work(view: ReadTransaction) -> Campaign | None:
        for each in view.campaigns(_LOOKED_AT):
            goes_on = each.state in (CampaignState.RUNNING, CampaignState.PAUSED)
            is_recent = since is not None and each.created_at >= since
            is_done = each.state is CampaignState.DONE and is_recent
            if each.selection == selection and (goes_on or is_done):
                return each
        return None

    return await registry.read(work)


def known(view: ReadTransaction, campaign_id: int) -> Campaign:
    """The campaign of this number.

    Raises:
        Problem: CAMPAIGN_UNKNOWN.
    """
    campaign = view.campaign(CampaignId(campaign_id))
    if campaign is None:
        raise Problem(
            ProblemCode.CAMPAIGN_UNKNOWN,
            f"There is no campaign {campaign_id}.",
            "See 'muster rotate list'.",
        )
    return campaign


def is_held(view: ReadTransaction, campaign: Campaign) -> bool:
    """Whether nobody of those who wait can be ordered now, as far as the first thousand show."""
    rows = view.rotations(campaign.id, RotationState.WAITING, "", _LOOKED_AT)
    devices = [view.device(row.device_id) for row in rows]
    return bool(rows) and all(device and device.state in HELD for device in devices)


def wanted_devices(selection: Selection) -> DeviceFilter:
    """The filter that finds a selection's devices, whatever state they are in."""
    match selection.kind, selection.name:
        case SelectionKind.GROUP, str(name):
            return DeviceFilter(group=GroupName(name))
        case SelectionKind.CLAIM, str(name):
            return DeviceFilter(claim_name=ClaimName(name))
        case _:
            return DeviceFilter()


def event(campaign: Campaign, kind: EventKind, now: datetime) -> Event:
    """A line of the audit log about the campaign as a whole."""
    selection = campaign.selection
    pace = f"{campaign.per_minute} a minute"
    waves = f", waves of {campaign.wave_size}" if campaign.wave_size else ""
    counts = f"{campaign.done} of {campaign.total} done"
    told = f"{selection}, {pace}{waves}" if kind is EventKind.ROTATION_STARTED else counts
    why = f": {campaign.reason}" if campaign.reason else ""
    return Event(
        at=now,
        kind=kind,
        group=selection.name if selection.kind is SelectionKind.GROUP else None,
        claim_name=selection.name if selection.kind is SelectionKind.CLAIM else None,
        detail=f"campaign {campaign.id}, {told}{why}",
    )


def _preview(view: ReadTransaction, selection: Selection) -> Preview:
    if selection.kind is SelectionKind.DEVICES:
        found = [view.device(each) for each in dict.fromkeys(selection.ids)]
        counts = Counter(device.state for device in found if device is not None)
    else:
        counts = Counter(view.count_devices(wanted_devices(selection)))
    members, held = (sum(counts[each] for each in states) for states in (MEMBERS, HELD))
    return Preview(members, held, counts.total() - members - held)


def _check(view: ReadTransaction, wanted: Wanted) -> None:
    _check_numbers(wanted)
    selection = wanted.selection
    match selection.kind:
        case SelectionKind.DEVICES:
            for each in selection.ids:
                if view.device(each) is None:
                    raise unknown_device(each)
        case SelectionKind.GROUP:
            if view.group(GroupName(selection.name or "")) is None:
                raise unknown_group(selection.name or "")
        case SelectionKind.CLAIM:
            if view.claim_certificate(ClaimName(selection.name or "")) is None:
                raise unknown_claim_certificate(selection.name or "")


def _check_numbers(wanted: Wanted) -> None:
    selection = wanted.selection
    if not 1 <= wanted.per_minute <= MAX_PER_MINUTE:
        raise _invalid(f"{wanted.per_minute} a minute is no pace.", f"Give 1 to {MAX_PER_MINUTE}.")
    if wanted.wave_size is not None and wanted.wave_size < 1:
        raise _invalid("A wave needs a device.", "Give --wave 1 or more, or leave it away.")
    if wanted.reason is not None and len(wanted.reason) > MAX_REASON:
        raise _invalid("The reason is too long.", f"Use at most {MAX_REASON} letters.")
    if selection.kind is not SelectionKind.DEVICES:
        return
    if not selection.ids:
        raise _invalid("No device was named.", "Name devices, a group, or all of them.")
    if len(selection.ids) > MAX_NAMED:
        raise _invalid(
            f"{len(selection.ids)} devices are too many to name.",
            f"Name at most {MAX_NAMED}, or choose by group or claim certificate.",
        )


def _invalid(message: str, remedy: str) -> Problem:
    return Problem(ProblemCode.VALUE_INVALID, message, remedy)


def _leads_to(happens: CampaignInput) -> set[CampaignState]:
    return {after for (_, each), after in CAMPAIGN_TRANSITIONS.items() if each is happens}


def _over(campaign: Campaign) -> Problem:
    return Problem(
        ProblemCode.CAMPAIGN_OVER,
        f"Campaign {campaign.id} is {campaign.state} already.",
        "Start another one with 'muster rotate start'.",
    )
