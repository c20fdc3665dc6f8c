"""`muster rotate`: have devices renew their certificates, at a pace."""

import asyncio
import math
import time
from typing import Annotated, Final

import typer

from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignInput,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.campaign_pace import MAX_PER_MINUTE
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.options import (
    MAX_WAVE,
    DryRunOption,
    JsonOption,
    common,
    warn_unserved,
    with_registry,
    with_registry_watched,
)
from broker.entry.cli.output import counted, emit, note, progress, say, table
from broker.entry.cli.views import campaign_json, rotation_json, shown_time
from broker.operating.installation import Installation
from broker.ports.registry import Registry
from broker.protocol.names import DeviceId
from broker.services import campaigns
from broker.services.campaigns import PER_MINUTE, Preview, Wanted
from broker.services.device_acts import MAX_REASON

commands = typer.Typer(
    help="Have devices renew their certificates, at a pace.", no_args_is_help=True
)

_MAX_NUMBER: Final = (1 << 63) - 1
NumberArgument = Annotated[
    int, typer.Argument(metavar="ID", min=1, max=_MAX_NUMBER, help="The campaign's number.")
]

_LISTED: Final = 1000
_PAUSE_S: Final = 0.5
_LINE_S: Final = 5.0


@commands.command("start")
def start(
    context: typer.Context,
    device: Annotated[
        list[str] | None, typer.Option("--device", metavar="ID", help="This one; repeatable.")
    ] = None,
    group: Annotated[str | None, typer.Option(help="All devices of this group.")] = None,
    everyone: Annotated[bool, typer.Option("--all", help="Every device of the fleet.")] = False,
    claimed_by: Annotated[
        str | None,
        typer.Option(
            "--claimed-by",
            "--claim",
            metavar="CLAIM",
            help="All that claimed with this claim certificate.",
        ),
    ] = None,
    per_minute: Annotated[
        int, typer.Option(min=1, max=MAX_PER_MINUTE, help="How many are ordered in a minute.")
    ] = PER_MINUTE,
    wave: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_WAVE,
            help="So many first; more once nine in ten of them have renewed.",
        ),
    ] = None,
    reason: Annotated[
        str | None, typer.Option(help="Why, in your words; it's kept in the audit log.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Order devices to renew; those that are switched off follow when they come back."""
    selection = _selection(device or [], group, everyone, claimed_by)
    if reason is not None and len(reason) > MAX_REASON:
        raise typer.BadParameter(f"at most {MAX_REASON} letters", param_hint="--reason")
    wanted = Wanted(selection, per_minute, wave, reason)
    begin(to_act_on(context), wanted, dry_run=dry_run, as_json=as_json)


@commands.command("status")
def status(
    context: typer.Context,
    number: Annotated[
        int | None,
        typer.Argument(
            metavar="[ID]",
            min=1,
            max=_MAX_NUMBER,
            help="The campaign's number, else the newest.",
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Wait until it's over.")] = False,
    open_: Annotated[
        bool, typer.Option("--open", help="And who has been ordered, but hasn't followed yet.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """How far a campaign is."""
    installation = common(context).installation()
    if watch:
        campaign = with_registry_watched(installation, lambda registry: _watch(registry, number))
    else:
        campaign = with_registry(installation, lambda registry: campaigns.find(registry, number))
    _show(campaign, as_json)
    if open_:
        rows = with_registry(installation, lambda registry: _open(registry, campaign.id))
        _show_open(rows, as_json)


@commands.command("pause")
def pause(context: typer.Context, number: NumberArgument, as_json: JsonOption = False) -> None:
    """Order nobody else for now; those who were ordered follow."""
    _change(context, number, CampaignInput.PAUSE, as_json=as_json)


@commands.command("resume")
def resume(context: typer.Context, number: NumberArgument, as_json: JsonOption = False) -> None:
    """Go on with a paused campaign."""
    _change(context, number, CampaignInput.RESUME, as_json=as_json)


@commands.command("cancel")
def cancel(context: typer.Context, number: NumberArgument, as_json: JsonOption = False) -> None:
    """End it; orders that weren't followed yet are taken back."""
    _change(context, number, CampaignInput.CANCEL, as_json=as_json)


@commands.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """All campaigns, the newest first."""
    found = with_registry(
        common(context).installation(),
        lambda registry: registry.read(lambda view: view.campaigns(_LISTED)),
    )
    if as_json:
        for each in found:
            emit(campaign_json(each))
        return
    rows = [
        (
            str(each.id),
            each.state.value,
            str(each.selection),
            f"{each.done}/{each.total}",
            shown_time(each.created_at),
            each.reason or "-",
        )
        for each in found
    ]
    table(("id", "state", "devices", "done", "started", "reason"), rows)


def begin(
    installation: Installation, wanted: Wanted, *, dry_run: bool, as_json: bool = False
) -> None:
    """Starts the campaign, or says how many devices it would be about."""
    preview = with_registry(installation, lambda registry: campaigns.preview(registry, wanted))
    if dry_run:
        if as_json:
            emit({"members": preview.members, "held": preview.held, "left_out": preview.others})
        _announce(wanted, preview)
        note("Nothing was changed.")
        return
    campaign = with_registry(
        installation, lambda registry: campaigns.start(registry, installation.clock, wanted)
    )
    if as_json:
        emit(campaign_json(campaign))
    else:
        say(f"campaign {campaign.id}")
    _announce(wanted, preview)
    note(f"Next: 'muster rotate status {campaign.id} --watch'. The running service carries it out.")
    warn_unserved(installation)


def _announce(wanted: Wanted, preview: Preview) -> None:
    minutes = -(-preview.members // wanted.per_minute)
    note(
        f"To renew: {counted(preview.members, 'device')}, {wanted.per_minute:,} a minute: about "
        f"{counted(minutes, 'minute')}, and longer for those that are switched off."
    )
    if preview.held:
        note(
            f"Suspended, or without a proven certificate: {counted(preview.held, 'device')}. The "
            "campaign waits, and orders them when they're members."
        )
    if preview.others:
        note(f"Left out, as they hold no certificate: {counted(preview.others, 'device')}.")


def _selection(
    ids: list[str], group: str | None, everyone: bool, claimed_by: str | None
) -> Selection:
    chosen = []
    if ids:
        named = tuple(DeviceId(each) for each in ids)
        chosen.append(Selection(SelectionKind.DEVICES, ids=named))
    if group is not None:
        chosen.append(Selection(SelectionKind.GROUP, group))
    if everyone:
        chosen.append(Selection(SelectionKind.ALL))
    if claimed_by is not None:
        chosen.append(Selection(SelectionKind.CLAIM, claimed_by))
    if len(chosen) != 1:
        raise typer.BadParameter("give one of --device, --group, --all and --claimed-by")
    return chosen[0]


def _change(context: typer.Context, number: int, happens: CampaignInput, *, as_json: bool) -> None:
    installation = to_act_on(context)
    campaign = with_registry(
        installation,
        lambda registry: campaigns.change(registry, installation.clock, number, happens),
    )
    if as_json:
        emit(campaign_json(campaign))
    else:
        say(f"campaign {campaign.id} is {campaign.state}")
    if campaign.ordered and happens is not CampaignInput.RESUME:
        what = "Taken back" if happens is CampaignInput.CANCEL else "May still be followed"
        note(f"{what}: {counted(campaign.ordered, 'order')}.")


async def _watch(registry: Registry, number: int | None) -> Campaign:
    """Shows how far it is until nothing is left to do for the campaign: a bar on a terminal,
    elsewhere a line on stderr when its state changes, and every few seconds while it moves."""
    campaign = await campaigns.find(registry, number)
    with progress(_progress(campaign), campaign.total or None) as bar:
        said, said_at = "", -math.inf
        while True:
            line, now = _progress(campaign), time.monotonic()
            bar.update(
                bar.task_ids[0],
                description=line,
                total=campaign.total or None,
                completed=campaign.settled,
            )
            has_turned = campaign.state not in said or campaign.is_over
            if bar.disable and line != said and (has_turned or now - said_at >= _LINE_S):
                note(f"{line}, {campaign.settled:,} of {campaign.total:,} done with")
                said, said_at = line, now
            if campaign.is_over:
                return campaign
            await asyncio.sleep(_PAUSE_S)
            campaign = await campaigns.find(registry, campaign.id)


def _progress(campaign: Campaign) -> str:
    """Such as `campaign 7 paused, 40 waiting, 3 ordered`."""
    return (
        f"campaign {campaign.id} {campaign.state}, {campaign.waiting:,} waiting, "
        f"{campaign.ordered:,} ordered"
    )


async def _open(registry: Registry, number: CampaignId) -> list[Rotation]:
    return await registry.read(
        lambda view: view.rotations(number, RotationState.ORDERED, "", _LISTED)
    )


def _show(campaign: Campaign, as_json: bool) -> None:
    if as_json:
        emit(campaign_json(campaign))
        return
    fields = {
        "campaign": str(campaign.id),
        "state": campaign.state.value,
        "devices": str(campaign.selection),
        "reason": campaign.reason or "-",
        "pace": f"{campaign.per_minute:,} a minute",
        "wave": f"{campaign.wave} of {campaign.wave_size:,} each" if campaign.wave_size else "-",
        "listed": f"{campaign.total:,}" + ("" if campaign.is_listed else ", and more to come"),
        "waiting": f"{campaign.waiting:,}",
        "ordered": f"{campaign.ordered:,}",
        "done": f"{campaign.done:,}",
        "dropped": f"{campaign.dropped:,}",
        "withdrawn": f"{campaign.withdrawn:,}",
        "started": shown_time(campaign.created_at),
        "ended": shown_time(campaign.ended_at),
    }
    table(("field", "value"), list(fields.items()))


def _show_open(rows: list[Rotation], as_json: bool) -> None:
    if as_json:
        for row in rows:
            emit(rotation_json(row))
        return
    cells = [(row.device_id, str(row.version), shown_time(row.ordered_at)) for row in rows]
    table(("device", "order", "ordered"), cells, title="ordered, and not followed yet")
    if len(rows) == _LISTED:
        note(f"These are the first {_LISTED:,}.")
