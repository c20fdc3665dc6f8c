"""`muster ca infrastructure`: replace the authority by which devices know brokers."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Protocol

import typer

from broker.core.infrastructure_rollover import ServerPhase, ServerRollover
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import emit, note, table
from broker.entry.cli.root_key import RootKeyOption, RootPassphraseOption, root_key_of
from broker.entry.cli.views import shown_time
from broker.operating import server_authorities
from broker.operating.authorities import RootKey
from broker.operating.installation import Installation
from broker.operating.server_authorities import ServerStanding
from broker.ports.registry import Registry

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
    ServerPhase.CANCELLED: "It was cancelled; the new authority's key may be destroyed: {key}",
    ServerPhase.DONE: "It is over; the old authority's key may be destroyed: {key}",
}


@dataclass(frozen=True)
class _How:
    """What a command's options say about a step."""

    dry_run: bool
    as_json: bool


class _ByRoot(Protocol):
    """A step that the root's key signs."""

    def __call__(
        self, installation: Installation, registry: Registry, root: RootKey, *, dry_run: bool
    ) -> Awaitable[ServerStanding]: ...


@commands.command("start")
def start(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new authority; devices are told of it by a trust bundle that the root signs."""
    how = _How(dry_run, as_json)
    _by_root(context, server_authorities.start, root_key, root_passphrase_file, how)


@commands.command("status")
def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """How far it is, and whom the next step would shut out."""
    installation = common(context).installation()
    _do(installation, lambda r: server_authorities.standing(installation, r), _How(False, as_json))


@commands.command("fleet")
def fleet(
    context: typer.Context,
    abandon: AbandonOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """The fleet's broker changes to the new authority."""
    _move(context, ServerPhase.FLEET, abandon, _How(dry_run, as_json))


@commands.command("claim")
def claim(
    context: typer.Context,
    abandon: AbandonOption = 0,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """The claim broker changes to the new authority."""
    _move(context, ServerPhase.CLAIM, abandon, _How(dry_run, as_json))


@commands.command("finish")
def finish(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """End the trust in the old authority; after 'cancel', in the new one."""
    how = _How(dry_run, as_json)
    _by_root(context, server_authorities.finish, root_key, root_passphrase_file, how)


@commands.command("cancel")
def cancel(
    context: typer.Context,
    root_key: RootKeyOption = None,
    root_passphrase_file: RootPassphraseOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Go back to the old authority, at any step before the end."""
    how = _How(dry_run, as_json)
    _by_root(context, server_authorities.cancel, root_key, root_passphrase_file, how)


def _by_root(
    context: typer.Context,
    act: _ByRoot,
    root_key: Path | None,
    root_passphrase_file: Path | None,
    how: _How,
) -> None:
    installation = to_act_on(context)
    root = root_key_of(installation, root_key, root_passphrase_file)
    _do(installation, lambda r: act(installation, r, root, dry_run=how.dry_run), how)


def _move(context: typer.Context, phase: ServerPhase, abandon: int, how: _How) -> None:
    installation = to_act_on(context)
    _do(
        installation,
        lambda r: server_authorities.move_broker(
            installation, r, phase, abandon, dry_run=how.dry_run
        ),
        how,
    )


def _do(
    installation: Installation, act: Callable[[Registry], Awaitable[ServerStanding]], how: _How
) -> None:
    standing = with_registry(installation, act)
    rollover = standing.rollover
    if how.as_json:
        emit(
            {
                "dry_run": how.dry_run,
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
    if how.dry_run:
        note("So it would stand then. Nothing was changed; the keys are there and open.")
    else:
        note(_next(installation, rollover))


def _next(installation: Installation, rollover: ServerRollover) -> str:
    gone = rollover.new if rollover.phase is ServerPhase.CANCELLED else rollover.old
    return _NEXT[rollover.phase].format(key=installation.home.infrastructure_of(gone).key)


def _some(names: Sequence[str], count: int) -> str:
    """`count` of them, by the first of their `names`."""
    if not names:
        return "none"
    shown = ", ".join(names[:_SHOWN])
    return f"{count:,}: {shown}{', …' if count > _SHOWN else ''}"
