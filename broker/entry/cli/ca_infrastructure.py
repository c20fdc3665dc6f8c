"""`muster ca infrastructure`: replace the authority by which devices know brokers."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from broker import server_authorities
from broker.authorities import RootKey
from broker.core.infrastructure_rollover import ServerPhase
from broker.entry.cli.options import JsonOption, common, with_registry
from broker.entry.cli.output import emit, note, table
from broker.entry.cli.root_key import RootKeyOption, RootPassphraseOption, root_key_of
from broker.entry.cli.views import shown_time
from broker.installation import Installation
from broker.ports import Registry
from broker.server_authorities import ServerStanding

commands = typer.Typer(
    help="Replace the authority by which devices know brokers.", no_args_is_help=True
)

AbandonOption = Annotated[
    int, typer.Option(min=0, help="How many may be shut out, after you have seen who.")
]
_SHOWN: Final = 20
_NEXT: Final = {
    ServerPhase.INTRODUCED: "Next: have all devices renew ('muster rotate start --all'), then "
    "'muster ca infrastructure fleet'.",
    ServerPhase.FLEET: "Next: once no claim bundle from before may claim any more, "
    "'muster ca infrastructure claim'.",
    ServerPhase.CLAIM: "Next: 'muster ca infrastructure finish'.",
    ServerPhase.RETURNING: "Brokers serve by the old authority again. Next: 'muster ca "
    "infrastructure finish'.",
    ServerPhase.CANCELLED: "It was cancelled; the new authority's key may be destroyed.",
    ServerPhase.DONE: "It is over; the old authority's key may be destroyed.",
}


@commands.command("start")
def start(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a new authority; devices are told of it by a trust bundle that the root signs."""
    _by_root(context, server_authorities.start, root_key, root_passphrase_file, as_json)


@commands.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """How far it is, and whom the next step would shut out."""
    installation = common(context).installation()
    _do(installation, lambda r: server_authorities.standing(installation, r), as_json)


@commands.command("fleet")
def fleet(context: typer.Context, abandon: AbandonOption = 0, as_json: JsonOption = False) -> None:
    """The fleet's broker changes to the new authority."""
    _move(context, ServerPhase.FLEET, abandon, as_json)


@commands.command("claim")
def claim(context: typer.Context, abandon: AbandonOption = 0, as_json: JsonOption = False) -> None:
    """The claim broker changes to the new authority."""
    _move(context, ServerPhase.CLAIM, abandon, as_json)


@commands.command("finish")
def finish(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """End the trust in the old authority; after 'cancel', in the new one."""
    _by_root(context, server_authorities.finish, root_key, root_passphrase_file, as_json)


@commands.command("cancel")
def cancel(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Go back to the old authority, at any step before the end."""
    _by_root(context, server_authorities.cancel, root_key, root_passphrase_file, as_json)


def _by_root(
    context: typer.Context,
    act: Callable[[Installation, Registry, RootKey], Awaitable[ServerStanding]],
    root_key: Path | None,
    root_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    installation = common(context).installation()
    root = root_key_of(installation, root_key, root_passphrase_file)
    _do(installation, lambda r: act(installation, r, root), as_json)


def _move(context: typer.Context, phase: ServerPhase, abandon: int, as_json: bool) -> None:
    installation = common(context).installation()
    _do(
        installation,
        lambda r: server_authorities.move_broker(installation, r, phase, abandon),
        as_json,
    )


def _do(
    installation: Installation,
    act: Callable[[Registry], Awaitable[ServerStanding]],
    as_json: bool,
) -> None:
    standing = with_registry(installation, act)
    rollover = standing.rollover
    if as_json:
        emit(
            {
                "phase": rollover and rollover.phase,
                "old": rollover and rollover.old,
                "new": rollover and rollover.new,
                "bundle_version": standing.version,
                "in_use_since": standing.in_use_since,
                "left": standing.left,
                "devices": standing.devices,
                "claims": standing.claims,
            }
        )
        return
    if rollover is None:
        note("There never was one. Start it with 'muster ca infrastructure start'.")
        return
    fields = {
        "phase": rollover.phase.value,
        "from": f"authority {rollover.old}",
        "to": f"authority {rollover.new}",
        "trust bundle": str(standing.version),
        "in use since": shown_time(standing.in_use_since),
        "may not know it": _some(standing.devices, standing.left),
        "claim certificates from before": _some(standing.claims, len(standing.claims)),
        "started": shown_time(rollover.since),
    }
    table(("field", "value"), list(fields.items()), title="infrastructure authority")
    note(_NEXT[rollover.phase])


def _some(names: Sequence[str], count: int) -> str:
    """`count` of them, by the first of their `names`."""
    if not names:
        return "none"
    shown = ", ".join(names[:_SHOWN])
    return f"{count:,}: {shown}{', …' if count > _SHOWN else ''}"
