"""`muster devices suspend|resume|revoke|reclaim|retire`: one act, and how long it took."""

import asyncio
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Final

import typer

from broker.core.lifecycle import DeviceInput
from broker.entry.cli.asking import YesOption, ask, to_act_on
from broker.entry.cli.device_acts_shown import (
    explain_impossible,
    say_how_it_went,
    say_obstacles,
    say_what_stands,
    say_what_would_be,
    show_acted,
)
from broker.entry.cli.options import DryRunOption, JsonOption, with_registry
from broker.entry.cli.output import advance, counted, progress
from broker.operating.examination import lock_out_obstacles
from broker.operating.installation import Installation
from broker.ports.registry import Registry
from broker.protocol.names import DeviceId
from broker.services import device_acts
from broker.services.act_progress import follow
from broker.services.device_acts import MAX_REASON, Acted, Effect, Wanted

IdsArgument = Annotated[list[str] | None, typer.Argument(metavar="ID", help="The devices' names.")]
GroupOption = Annotated[str | None, typer.Option(help="And all devices of this group.")]
ReasonOption = Annotated[
    str | None, typer.Option(help="Why, in your words; it's kept in the audit log.")
]
TimeoutOption = Annotated[
    float, typer.Option(min=0, help="For how many seconds to wait for the broker; 0: not at all.")
]
TIMEOUT_S: Final = 10.0

_HELP: Final = {
    DeviceInput.SUSPEND: "Put devices out for a while: refused, disconnected, and otherwise kept.",
    DeviceInput.RESUME: "Let suspended devices in again, with the certificates that they have.",
    DeviceInput.REVOKE: "Put devices out for good: their certificates are revoked.",
    DeviceInput.RECLAIM: "Let revoked devices claim anew, with new keys.",
    DeviceInput.RETIRE: "Put devices out, never to come back; they leave the group's quota.",
}
_INTERRUPTED: Final = 130
"""The exit status of what Ctrl-C ended."""


@dataclass(frozen=True)
class How:
    """What a command's options say about an act."""

    dry_run: bool = False
    as_json: bool = False
    timeout_s: float = TIMEOUT_S
    yes: bool = False


@dataclass(frozen=True)
class _Named:
    """Whom a command line names."""

    ids: Sequence[str]
    group: str | None


def add_to(commands: typer.Typer) -> None:
    """Adds a command for each act."""
    for act, text in _HELP.items():
        run = _retire if act is DeviceInput.RETIRE else _command(act)
        commands.command(act.value, help=text)(run)


def _command(act: DeviceInput) -> Callable[..., None]:
    def run(
        context: typer.Context,
        ids: IdsArgument = None,
        group: GroupOption = None,
        reason: ReasonOption = None,
        dry_run: DryRunOption = False,
        as_json: JsonOption = False,
        timeout: TimeoutOption = TIMEOUT_S,
    ) -> None:
        _run(context, act, reason, _Named(ids or [], group), How(dry_run, as_json, timeout))

    return run


def _retire(
    context: typer.Context,
    ids: IdsArgument = None,
    group: GroupOption = None,
    reason: ReasonOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
    timeout: TimeoutOption = TIMEOUT_S,
    yes: YesOption = False,
) -> None:
    how = How(dry_run, as_json, timeout, yes)
    _run(context, DeviceInput.RETIRE, reason, _Named(ids or [], group), how)


def _run(
    context: typer.Context, act: DeviceInput, reason: str | None, named: _Named, how: How
) -> None:
    wanted = Wanted(act, checked_reason(reason))
    installation = to_act_on(context)
    chosen = with_registry(
        installation, lambda registry: device_acts.choose(registry, named.ids, named.group)
    )
    if act is DeviceInput.RETIRE and named.group is not None and not how.dry_run:
        _ask_to_retire(installation, chosen, named.group, yes=how.yes)
    acted = carry_out(installation, chosen, wanted, how)
    # In a group, those who can't are passed over; who was named is expected to.
    if any(each.effect is Effect.IMPOSSIBLE and each.device_id in named.ids for each in acted):
        raise typer.Exit(1)


def checked_reason(reason: str | None) -> str | None:
    """The reason, if the audit log takes it.

    Raises:
        typer.BadParameter: it's too long.
    """
    if reason is not None and len(reason) > MAX_REASON:
        raise typer.BadParameter(f"at most {MAX_REASON} letters", param_hint="--reason")
    return reason


def _ask_to_retire(
    installation: Installation, chosen: Sequence[DeviceId], group: str, *, yes: bool
) -> None:
    """A whole group is named by one word, which is soon mistaken; and nothing brings it back."""
    planned = _plan(installation, chosen, Wanted(DeviceInput.RETIRE))
    count = sum(each.effect is Effect.DONE for each in planned)
    if count:
        who = f"{counted(count, 'device')}, all of group {group} among them"
        ask(f"Retire {who}? They can never come back.", yes=yes)


def carry_out(
    installation: Installation, chosen: Sequence[DeviceId], wanted: Wanted, how: How
) -> list[Acted]:
    """Acts on the chosen devices, waits, and reports; exit status 1 when a broker still owes."""
    if how.dry_run:
        acted = _plan(installation, chosen, wanted)
        show_acted(acted, wanted.act, as_json=how.as_json, dry_run=True)
        say_what_would_be(acted)
        explain_impossible(acted, wanted.act)
        return acted
    acted = _act(installation, chosen, wanted, how)
    show_acted(acted, wanted.act, as_json=how.as_json)
    is_owed = say_how_it_went(acted, wanted.act)
    explain_impossible(acted, wanted.act)
    if is_owed:
        say_obstacles(asyncio.run(lock_out_obstacles(installation)))
        if how.timeout_s > 0:
            raise typer.Exit(1)
    return acted


def _plan(installation: Installation, chosen: Sequence[DeviceId], wanted: Wanted) -> list[Acted]:
    now = installation.clock.now()
    return with_registry(
        installation, lambda registry: device_acts.plan(registry, now, chosen, wanted)
    )


def _act(
    installation: Installation, chosen: Sequence[DeviceId], wanted: Wanted, how: How
) -> list[Acted]:
    devices = [(device_id, uuid.uuid4().hex) for device_id in chosen]
    since = installation.clock.now()
    try:
        return with_registry(
            installation,
            lambda registry: _carry_out(installation, registry, devices, wanted, how),
        )
    except KeyboardInterrupt:
        _report_interrupted(installation, devices, wanted, since, as_json=how.as_json)
        raise typer.Exit(_INTERRUPTED) from None


async def _carry_out(
    installation: Installation,
    registry: Registry,
    devices: Sequence[tuple[DeviceId, str]],
    wanted: Wanted,
    how: How,
) -> list[Acted]:
    acted = []
    with progress(f"{wanted.act} in the registry", len(devices)) as bar:
        async for each in device_acts.carry_out(registry, installation.clock, devices, wanted):
            acted.append(each)
            advance(bar, 1)
    asked = [each.lock_out for each in acted if each.lock_out is not None]
    with progress("in force on the broker", len(asked)) as bar:
        known = await follow(registry, asked, how.timeout_s, lambda count: advance(bar, count))
    return [
        replace(each, lock_out=known[each.lock_out.id]) if each.lock_out else each for each in acted
    ]


def _report_interrupted(
    installation: Installation,
    devices: Sequence[tuple[DeviceId, str]],
    wanted: Wanted,
    since: datetime,
    *,
    as_json: bool,
) -> None:
    """What was committed isn't taken back by an interruption, so it is said."""
    acted = with_registry(
        installation, lambda registry: device_acts.broken_off(registry, devices, wanted, since)
    )
    show_acted(acted, wanted.act, as_json=as_json)
    say_what_stands(acted, wanted.act, len(devices))
