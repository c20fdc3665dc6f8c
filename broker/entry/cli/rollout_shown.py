"""Rollouts as the commands show them; the JSON's members never change their meaning."""

import asyncio
from collections.abc import Sequence
from typing import Final

import typer

from broker.core.rollout import FAILED, FINISHED, IN_FORCE, Progress, Rollout, RolloutState
from broker.core.update_records import Part
from broker.entry.cli.output import emit, note, progress, say, table
from broker.entry.cli.views import Json, shown_time
from broker.ports.registry import Registry
from broker.services import rollouts
from broker.services.rollouts import RolloutView

_PAUSE_S: Final = 0.3
ENDED: Final = {RolloutState.DONE, RolloutState.ABORTED, RolloutState.CANCELLED}
_COLUMNS: Final = ("rollout", "state", "installed", "failed", "under way", "queued", "started")


def rollout_json(view: RolloutView) -> Json:
    """A rollout and how many devices stand where."""
    rollout = view.rollout
    return {
        "name": rollout.name,
        "number": rollout.number,
        "state": rollout.state,
        "reason": rollout.reason,
        "started_at": rollout.started_at,
        "state_at": rollout.state_at,
        "images": list(rollout.images),
        "selection": rollout.selection,
        "pace": rollout.pace,
        "timing": rollout.timing,
        "stop": rollout.stop,
        "keep_open": rollout.keep_open,
        "again": rollout.again,
        "wave": rollout.wave + 1,
        "devices": view.devices,
        "progress": {each.value: view.at(each) for each in Progress},
        "codes": dict(view.codes),
        "prepared": view.prepared,
    }


def part_json(part: Part) -> Json:
    """Where one device stands."""
    return {
        "device_id": part.device_id,
        "progress": part.progress,
        "since": part.changed_at,
        "wave": part.wave + 1,
        "sequence": part.sequence,
        "code": part.code,
        "detail": part.detail,
    }


def show_rollouts(views: Sequence[RolloutView], title: str = "") -> None:
    """A line each."""
    table(_COLUMNS, [_row(view) for view in views], title=title)


def show_rollout(view: RolloutView) -> None:
    """One with everything that was asked for, and where its devices stand."""
    rollout = view.rollout
    fields = {
        "state": rollout.state.value,
        "because": rollout.reason or "-",
        "images": ", ".join(image.path for image in rollout.images),
        "for": _selected(rollout),
        "pace": _pace(rollout, view),
        "stops above": f"{rollout.stop.percent} failed, of {rollout.stop.after} or more",
        "prepared": f"{view.prepared:,} of {view.at(Progress.QUEUED):,} that are queued",
        "switches": _timing(rollout),
        "started": shown_time(rollout.started_at),
    }
    table(("field", "value"), list(fields.items()), title=f"rollout {rollout.name}")
    places = [(each.value, str(view.at(each))) for each in Progress if view.at(each)]
    table(("devices", "how many"), places, title="devices")
    if view.codes:
        worst = sorted(view.codes.items(), key=lambda found: -found[1])
        table(("code", "how many"), [(code, str(n)) for code, n in worst], title="why not")
    for failed in sorted(FAILED):
        if view.at(failed):
            note(f"Who and why: 'muster update rollout {rollout.name} --devices --at {failed}'.")


def show_parts(parts: Sequence[Part], *, is_first: bool) -> None:
    """A line for each device."""
    rows = [
        (
            part.device_id,
            part.progress.value,
            shown_time(part.changed_at),
            part.code or "-",
            part.detail or "-",
        )
        for part in parts
    ]
    table(("device", "stands at", "since", "code", "detail"), rows, show_columns=is_first)


async def watch(registry: Registry, name: str, *, as_json: bool) -> RolloutView:
    """Shows every change until the rollout has ended, and each of its devices, too, if it was
    called back."""
    view = await rollouts.look(registry, name)
    with progress(name, view.devices) as bar:
        shown = ""
        while True:
            line = _line(view)
            if line != shown:
                shown = line
                bar.update(
                    bar.task_ids[0],
                    description=line,
                    completed=view.at(*FINISHED, Progress.CANCELLED, Progress.SKIPPED),
                    total=view.devices,
                )
                _tell(view, line, as_json=as_json, has_bar=not bar.disable)
            if view.rollout.state in ENDED and not view.rollout.moving:
                return view
            await asyncio.sleep(_PAUSE_S)
            view = await rollouts.look(registry, name)


def _tell(view: RolloutView, line: str, *, as_json: bool, has_bar: bool) -> None:
    if as_json:
        emit(rollout_json(view))
    elif not has_bar:
        say(line)


def conclude(view: RolloutView) -> None:
    """Exit status 1 when the rollout was stopped."""
    rollout = view.rollout
    note(_line(view), "green" if rollout.state is RolloutState.DONE else "yellow")
    for code, devices in sorted(view.codes.items()):
        note(f"  {devices:,} x {code}")
    if rollout.state in ENDED - {RolloutState.DONE}:
        note(f"It was {rollout.state}: {rollout.reason or 'by an operator'}.", "yellow")
        raise typer.Exit(1)


def _line(view: RolloutView) -> str:
    parts = [f"{view.rollout.name} {view.rollout.state}"]
    parts += [f"{view.at(each):,} {each.value}" for each in Progress if view.at(each)]
    return ", ".join(parts)


def _row(view: RolloutView) -> tuple[str, ...]:
    rollout = view.rollout
    return (
        rollout.name,
        rollout.state.value,
        f"{view.at(Progress.INSTALLED):,}/{view.devices - view.at(Progress.SKIPPED):,}",
        f"{view.at(*FAILED):,}",
        f"{view.at(*IN_FORCE):,}",
        f"{view.at(Progress.QUEUED):,}",
        shown_time(rollout.started_at),
    )


def _selected(rollout: Rollout) -> str:
    selection = rollout.selection
    if selection.everyone:
        return "all devices"
    if selection.group is not None:
        return f"group {selection.group}"
    return ", ".join(selection.devices[:5]) + (" …" if len(selection.devices) > 5 else "")


def _pace(rollout: Rollout, view: RolloutView) -> str:
    pace = rollout.pace
    meant = view.devices - view.at(Progress.SKIPPED)
    words = [f"wave {rollout.wave + 1} of {pace.waves(meant)}"]
    if pace.per_minute is not None:
        words.append(f"{pace.per_minute:,} a minute")
    return ", ".join(words)


def _timing(rollout: Rollout) -> str:
    timing = rollout.timing
    words = [] if timing.release_at is None else [f"told at {shown_time(timing.release_at)}"]
    words += [f"in {timing.window} UTC"] if timing.window else []
    if timing.not_before is not None:
        words.append(f"not before {shown_time(timing.not_before)}")
    if timing.deadline is not None:
        words.append(f"by {shown_time(timing.deadline)} at the latest")
    return ", ".join(words) or "at once"
