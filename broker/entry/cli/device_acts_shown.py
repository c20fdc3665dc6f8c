"""What became of an act on devices, for a person and for programs."""

from collections.abc import Sequence
from typing import Final

from broker.core.device_acts import ACTS
from broker.core.findings import Finding
from broker.core.lifecycle import DEVICE_TRANSITIONS, DeviceInput, DeviceState
from broker.entry.cli.output import counted, emit, note, table
from broker.entry.cli.views import acted_effect, acted_json
from broker.protocol.names import DeviceId
from broker.services.device_acts import Acted, Effect
from broker.services.lock_out import milliseconds

_OUT: Final = {DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE}
_NAMED: Final = 10


def show_acted(
    acted: Sequence[Acted], act: DeviceInput, *, as_json: bool, dry_run: bool = False
) -> None:
    """A line for each device."""
    if as_json:
        for each in acted:
            emit(acted_json(each, dry_run=dry_run))
        return
    columns = ("device", "effect", "state", "certificates", "CRL after", "disconnected after")
    table(columns, [_row(each, act, dry_run=dry_run) for each in acted])


def say_what_would_be(acted: Sequence[Acted]) -> None:
    """After a dry run."""
    changed = sum(each.effect is Effect.DONE for each in acted)
    note(f"{counted(changed, 'device')} would be changed. Nothing was changed.")


def say_how_it_went(acted: Sequence[Acted], act: DeviceInput) -> bool:
    """How many were changed; returns whether the broker still owes something to any of them."""
    count = {effect: sum(each.effect is effect for each in acted) for effect in Effect}
    note(
        f"{act}: {count[Effect.DONE]:,} done, {count[Effect.UNCHANGED]:,} there already, "
        f"{count[Effect.IMPOSSIBLE]:,} impossible."
    )
    if act is DeviceInput.RECLAIM and count[Effect.DONE]:
        note("Next: each claims again, with a new key; its old keys are never accepted.")
    waiting = [each for each in acted if _still_owed(each)]
    if waiting:
        note(
            f"{len(waiting):,} of them wait for the fleet's broker. It's in the registry, and the "
            "service completes it by itself as soon as both run: see 'muster doctor'.",
            "yellow",
        )
    return bool(waiting)


def say_obstacles(found: Sequence[Finding]) -> None:
    """Why the broker may owe it for long."""
    for each in found:
        note(f"In the way, {each.subject}: {each.message} {each.remedy}", "yellow")


def say_what_stands(acted: Sequence[Acted], act: DeviceInput, asked: int) -> None:
    """After an interruption: what is done all the same, and who does the rest."""
    if not acted:
        note(f"Interrupted: no device's state was changed by this {act}.", "yellow")
        return
    final = ", and that is for ever" if act is DeviceInput.RETIRE else ""
    note(
        f"Interrupted, but in the registry this {act} is done for {len(acted):,} of "
        f"{counted(asked, 'device')}{final}.",
        "yellow",
    )
    if any(_still_owed(each) for each in acted):
        note("The service completes it on the fleet's broker by itself: see 'muster doctor'.")
    if len(acted) < asked:
        note("The others weren't changed by it; the same command again goes on with them.")


def explain_impossible(acted: Sequence[Acted], act: DeviceInput) -> None:
    """For each state in which it can't be done: who is in it, and what can be done there."""
    by_state: dict[DeviceState, list[DeviceId]] = {}
    for each in acted:
        if each.effect is Effect.IMPOSSIBLE:
            by_state.setdefault(each.before, []).append(each.device_id)
    for state, names in by_state.items():
        who = ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")
        needed = [each for each in DeviceState if (each, act) in DEVICE_TRANSITIONS]
        note(
            f"{who}: {state}. Only a device that is {_either(needed)} can be {_participle(act)}; "
            f"{_remedy(state)}."
        )


def _remedy(state: DeviceState) -> str:
    possible = [each for each in ACTS if (state, each) in DEVICE_TRANSITIONS]
    if not possible:
        return "that state is for ever"
    return f"now it can be {_either([_participle(each) for each in possible])}"


def _participle(act: DeviceInput) -> str:
    return f"{act}{'d' if act.endswith('e') else 'ed'}"


def _either(words: Sequence[str]) -> str:
    """`a, b or c`."""
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _row(each: Acted, act: DeviceInput, *, dry_run: bool) -> tuple[str, ...]:
    lock_out = each.lock_out
    state = f"{each.before} → {each.after}" if each.effect is Effect.DONE else each.before.value
    crl = gone = "-"
    if lock_out is not None:
        crl = _shown(milliseconds(lock_out, lock_out.crl_at))
        if act in _OUT:
            gone = _shown(milliseconds(lock_out, lock_out.disconnected_at))
    effect = acted_effect(each, dry_run=dry_run).replace("_", " ")
    return each.device_id, effect, state, str(each.certificates), crl, gone


def _shown(after_ms: int | None) -> str:
    return "waits" if after_ms is None else f"{after_ms} ms"


def _still_owed(each: Acted) -> bool:
    lock_out = each.lock_out
    return lock_out is not None and not lock_out.is_complete and lock_out.ended_at is None
