"""`muster ca rollover`: replace the operational authority while the fleet lives on."""

import asyncio
import math
import time
from typing import Annotated, Final

import typer

from broker.core.ca_rollover import PER_MINUTE, Phase, Rollover
from broker.core.campaign import CampaignState
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
from broker.entry.cli.output import counted, emit, note, progress, table
from broker.entry.cli.root_key import RootKeyOption, RootPassphraseOption, root_key_of
from broker.entry.cli.views import rollover_json, shown_time
from broker.operating.authorities import check_start, start_rollover
from broker.operating.installation import Installation
from broker.ports.registry import Registry
from broker.services.ca_rollover import CaRollovers, Pace, Standing

commands = typer.Typer(
    help="Replace the operational authority while the fleet lives on.", no_args_is_help=True
)

_PAUSE_S: Final = 0.5
_LINE_S: Final = 5.0
_SHOWN: Final = 20


@commands.command("start")
def start(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    per_minute: Annotated[
        int, typer.Option(min=1, max=MAX_PER_MINUTE, help="How many devices move in a minute.")
    ] = PER_MINUTE,
    wave: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_WAVE, help="So many first; more once nine in ten of them have moved."
        ),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new authority; the service has the broker trust both, then moves the devices."""
    installation = to_act_on(context)
    root = root_key_of(installation, root_key, root_passphrase_file)
    pace = Pace(per_minute, wave)
    act = check_start if dry_run else start_rollover
    standing = with_registry(installation, lambda registry: act(installation, registry, pace, root))
    _show(installation, standing, as_json, dry_run=dry_run)
    if dry_run:
        note("Nothing was changed; the keys are there and open.")
    else:
        warn_unserved(installation)


@commands.command("status")
def status(
    context: typer.Context,
    watch: Annotated[
        bool, typer.Option("--watch", help="Wait until all devices have moved, or it's over.")
    ] = False,
    left: Annotated[bool, typer.Option("--left", help="And list the devices that are left.")] = (
        False
    ),
    as_json: JsonOption = False,
) -> None:
    """How far it is, and who is left."""
    installation = common(context).installation()

    async def look(registry: Registry) -> Standing:
        rollovers = CaRollovers(registry, installation.clock)
        return await (_watch(rollovers) if watch else rollovers.standing())

    standing = with_registry_watched(installation, look)
    _show(installation, standing, as_json)
    if left and not as_json:
        table(("left",), [(name,) for name in standing.left_names])
        if standing.left > len(standing.left_names):
            note(f"These are the first {len(standing.left_names):,}.")


@commands.command("pause")
def pause(context: typer.Context, as_json: JsonOption = False) -> None:
    """Tell no other device to move for now; both authorities stay trusted."""
    installation = to_act_on(context)
    standing = with_registry(installation, lambda r: CaRollovers(r, installation.clock).pause())
    _show(installation, standing, as_json)


@commands.command("resume")
def resume(context: typer.Context, as_json: JsonOption = False) -> None:
    """Go on; where all devices have been told, tell those anew that are left."""
    installation = to_act_on(context)
    standing = with_registry(installation, lambda r: CaRollovers(r, installation.clock).resume())
    _show(installation, standing, as_json)


@commands.command("finish")
def finish(
    context: typer.Context,
    abandon: Annotated[
        int,
        typer.Option(
            min=0, help="How many devices may be left; each is locked out until it recovers."
        ),
    ] = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """End the trust in the old authority, once nobody is left with it alone."""
    installation = to_act_on(context)
    standing = with_registry(
        installation,
        lambda r: CaRollovers(r, installation.clock).finish(abandon, dry_run=dry_run),
    )
    _show(installation, standing, as_json, dry_run=dry_run)
    if not dry_run:
        warn_unserved(installation)
        return
    if standing.rollover is not None and standing.rollover.phase in (Phase.LEAVING, Phase.DONE):
        note("It was finished before. Nothing was changed, and nothing would be.")
        return
    note(f"{counted(standing.left, 'device')} would be locked out. Nothing was changed.")
    _name_left(standing)


@commands.command("cancel")
def cancel(
    context: typer.Context, dry_run: DryRunOption = False, as_json: JsonOption = False
) -> None:
    """Go back to the authority that was there before; who has moved moves back."""
    installation = to_act_on(context)
    standing = with_registry(
        installation, lambda r: CaRollovers(r, installation.clock).cancel(dry_run=dry_run)
    )
    _show(installation, standing, as_json, dry_run=dry_run)
    if not dry_run:
        warn_unserved(installation)
        return
    if standing.rollover is not None and standing.rollover.is_return:
        note("It was cancelled before. Nothing was changed, and nothing would be.")
        return
    note(f"{counted(standing.moved, 'device')} would move back. Nothing was changed.")


async def _watch(rollovers: CaRollovers) -> Standing:
    """Shows how far it is until nobody is left, or there is nothing to wait for: a bar on a
    terminal, elsewhere a line on stderr at a new phase, and every few seconds while they move."""
    standing = await rollovers.standing()
    with progress("devices moved", _total(standing)) as bar:
        said, said_at = "", -math.inf
        while True:
            bar.update(bar.task_ids[0], total=_total(standing), completed=standing.moved)
            line, now = _progress(standing), time.monotonic()
            has_turned = line.split(":")[0] != said.split(":")[0] or _is_at_rest(standing)
            if bar.disable and line != said and (has_turned or now - said_at >= _LINE_S):
                note(line)
                said, said_at = line, now
            if _is_at_rest(standing):
                return standing
            await asyncio.sleep(_PAUSE_S)
            standing = await rollovers.standing()


def _total(standing: Standing) -> int | None:
    return standing.moved + standing.left or None


def _progress(standing: Standing) -> str:
    """Such as `moving: 3 of 7 devices have moved`."""
    phase = "no rollover" if standing.rollover is None else standing.rollover.phase.value
    return f"{phase}: {standing.moved:,} of {_total(standing) or 0:,} devices have moved"


def _is_at_rest(standing: Standing) -> bool:
    rollover = standing.rollover
    if rollover is None or rollover.phase is Phase.DONE:
        return True
    return rollover.phase is Phase.MOVING and standing.left == 0


def _show(
    installation: Installation, standing: Standing, as_json: bool, *, dry_run: bool = False
) -> None:
    if as_json:
        emit(rollover_json(standing) | {"dry_run": dry_run})
        return
    rollover = standing.rollover
    if rollover is None:
        note("There never was a rollover. Start one with 'muster ca rollover start'.")
        return
    fields = {
        "phase": rollover.phase.value,
        "direction": "back (cancelled)" if rollover.is_return else "forward",
        "from": f"authority {rollover.old}",
        "to": f"authority {rollover.new}",
        "moved": f"{standing.moved:,} of {standing.moved + standing.left:,} devices",
        "left": f"{standing.left:,}",
        "campaign": _campaign(standing),
        "started": shown_time(rollover.started_at),
    }
    table(("field", "value"), list(fields.items()), title="CA rollover")
    if not dry_run:
        note(_next(installation, rollover, standing))


def _campaign(standing: Standing) -> str:
    campaign = standing.campaign
    return "-" if campaign is None else f"{campaign.id}, {campaign.state}"


def _name_left(standing: Standing) -> None:
    if standing.left_names:
        names = ", ".join(standing.left_names[:_SHOWN])
        more = ", …" if standing.left > _SHOWN else ""
        note(f"They are: {names}{more}")


def _next(installation: Installation, rollover: Rollover, standing: Standing) -> str:
    match rollover.phase:
        case Phase.INTRODUCING | Phase.SWITCHING:
            return (
                "The service has the fleet's broker trust both, then goes on by itself. If it "
                "stays so, see that the service and the broker run: 'muster doctor'."
            )
        case Phase.LEAVING:
            return "The service has the fleet's broker forget the old one, which ends it."
        case Phase.DONE:
            old = installation.home.operational_of(rollover.old).key
            return f"It is over. The old authority's key may be destroyed: {old}"
    if standing.left == 0:
        return "Nobody is left. Next: 'muster ca rollover finish'."
    if standing.campaign is not None and standing.campaign.state is CampaignState.PAUSED:
        return "Devices aren't told to move. Next: 'muster ca rollover resume'."
    return (
        "Devices move as they come online. Next: 'muster ca rollover status --watch'; with --left "
        "it names those that are left."
    )
