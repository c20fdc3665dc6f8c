"""`muster devices suspend|resume|revoke|reclaim|retire`: one act, and how long it took."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import typer

from broker.core.lifecycle import DeviceInput
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import advance, counted, emit, note, progress, table
from broker.entry.cli.views import acted_json
from broker.examination import lock_out_obstacles
from broker.installation import Installation
from broker.ports import Registry
from broker.protocol.names import DeviceId
from broker.services import device_acts
from broker.services.act_progress import follow
from broker.services.device_acts import MAX_REASON, Acted, Effect, Wanted
from broker.services.lock_out import milliseconds

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
_OUT: Final = {DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE}

Choose = Callable[[Registry], Awaitable[Sequence[DeviceId]]]


@dataclass(frozen=True)
class How:
    """What a command's options say about an act."""

    dry_run: bool = False
    as_json: bool = False
    timeout_s: float = TIMEOUT_S


def add_to(commands: typer.Typer) -> None:
    """Adds a command for each act."""
    for act, text in _HELP.items():
        commands.command(act.value, help=text)(_command(act))


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
        if reason is not None and len(reason) > MAX_REASON:
            raise typer.BadParameter(f"at most {MAX_REASON} letters", param_hint="--reason")
        installation = common(context).installation()
        how = How(dry_run, as_json, timeout)
        acted = carry_out(
            installation,
            lambda registry: device_acts.choose(registry, ids or [], group),
            Wanted(act, reason),
            how,
        )
        # In a group, those who can't are passed over; who was named is expected to.
        if any(
            each.effect is Effect.IMPOSSIBLE and each.device_id in (ids or []) for each in acted
        ):
            raise typer.Exit(1)

    return run


def carry_out(installation: Installation, choose: Choose, wanted: Wanted, how: How) -> list[Acted]:
    """Acts on the chosen devices, waits, and reports; exit status 1 when a broker still owes."""
    if how.dry_run:
        acted = with_registry(
            installation, lambda registry: _plan(installation, registry, choose, wanted)
        )
    else:
        acted = with_registry(
            installation, lambda registry: _carry_out(installation, registry, choose, wanted, how)
        )
    _report(acted, wanted, how)
    _conclude(installation, acted, wanted, how)
    return acted


async def _plan(
    installation: Installation, registry: Registry, choose: Choose, wanted: Wanted
) -> list[Acted]:
    return await device_acts.plan(
        registry, installation.clock.now(), await choose(registry), wanted
    )


async def _carry_out(
    installation: Installation, registry: Registry, choose: Choose, wanted: Wanted, how: How
) -> list[Acted]:
    devices = [(device_id, uuid.uuid4().hex) for device_id in await choose(registry)]
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


def _report(acted: Sequence[Acted], wanted: Wanted, how: How) -> None:
    if how.as_json:
        for each in acted:
            emit(acted_json(each))
        return
    columns = ("device", "effect", "state", "certificates", "CRL after", "disconnected after")
    table(columns, [_row(each, wanted) for each in acted])


def _row(each: Acted, wanted: Wanted) -> tuple[str, ...]:
    lock_out = each.lock_out
    state = f"{each.before} → {each.after}" if each.effect is Effect.DONE else each.before.value
    crl = gone = "-"
    if lock_out is not None:
        crl = _shown(milliseconds(lock_out, lock_out.crl_at))
        if wanted.act in _OUT:
            gone = _shown(milliseconds(lock_out, lock_out.disconnected_at))
    return each.device_id, each.effect.value, state, str(each.certificates), crl, gone


def _shown(after_ms: int | None) -> str:
    return "waits" if after_ms is None else f"{after_ms} ms"


def _conclude(installation: Installation, acted: Sequence[Acted], wanted: Wanted, how: How) -> None:
    count = {effect: sum(each.effect is effect for each in acted) for effect in Effect}
    if how.dry_run:
        note(f"{counted(count[Effect.DONE], 'device')} would be changed. Nothing was changed.")
        return
    note(
        f"{wanted.act}: {count[Effect.DONE]:,} done, {count[Effect.UNCHANGED]:,} there already, "
        f"{count[Effect.IMPOSSIBLE]:,} impossible."
    )
    if wanted.act is DeviceInput.RECLAIM and count[Effect.DONE]:
        note("Next: each claims again, with a new key; its old keys are never accepted.")
    waiting = [each for each in acted if _still_owed(each)]
    if waiting:
        _tell_waiting(installation, len(waiting))
        if how.timeout_s > 0:
            raise typer.Exit(1)


def _tell_waiting(installation: Installation, count: int) -> None:
    note(
        f"{count:,} of them wait for the fleet's broker. It's in the registry, and the "
        "service completes it by itself as soon as both run: see 'muster doctor'.",
        "yellow",
    )
    for each in asyncio.run(lock_out_obstacles(installation)):
        note(f"In the way, {each.subject}: {each.message} {each.remedy}", "yellow")


def _still_owed(each: Acted) -> bool:
    lock_out = each.lock_out
    return lock_out is not None and not lock_out.is_complete and lock_out.ended_at is None
