"""`muster update push`: start a rollout."""

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Annotated, Final

import typer

from broker.core.durations import parse_duration
from broker.core.rollout import Rollout, RolloutState, Selection, Timing
from broker.core.rollout_pace import EVERYBODY, Pace, StopRule
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.options import (
    MAX_WAVE,
    DryRunOption,
    JsonOption,
    common,
    warn_unserved,
    with_registry,
)
from broker.entry.cli.output import STYLES, emit, note, say, table
from broker.entry.cli.rollout_shown import conclude, rollout_json, watch
from broker.entry.cli.views import shown_time
from broker.operating.installation import Installation
from broker.operating.updating import update_repository
from broker.ports.registry import Registry
from broker.ports.updates import PublishedTarget
from broker.protocol.names import DeviceId, GroupName
from broker.services import rollouts
from broker.services.rollouts import TOLD, Push, RolloutView

_HOURS: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")
_NAME_LENGTH: Final = 48
_MOST: Final = 1_000_000
WHEN: Final = "such as 2026-12-01T22:00 (UTC), or in how long: 7d, 12h"
_SKIPPED: Final = {
    "no_image_fits": "no image is for their model or hardware revision",
    "device_model_unknown": "they never said which model they are, and several images might fit",
    "rolled_back_before": "they rolled this image back; '--again' offers it all the same",
    "runs_already": "they have reported that they run it",
    "superseded": "a newer rollout has them",
    "device_gone": "they left the fleet",
}

_Images = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Published images; each fits some.")
]
_Devices = Annotated[
    list[str] | None,
    typer.Option("--device", "--devices", metavar="ID", help="This one; repeatable."),
]
_Group = Annotated[str | None, typer.Option(help="All devices of this group.")]
_Everyone = Annotated[bool, typer.Option("--all", help="Every device of the fleet.")]
_Name = Annotated[str | None, typer.Option(help="The rollout's, else made of the image's.")]
_PerMinute = Annotated[
    int | None, typer.Option(min=1, max=_MOST, help="Tell at most so many a minute.")
]
_Wave = Annotated[
    int | None,
    typer.Option(min=1, max=MAX_WAVE, help="So many at a time; more when these have finished."),
]
_Percent = Annotated[
    str | None, typer.Option(metavar="P,P,...", help="Waves by percent, such as 1,10,100.")
]
_Window = Annotated[
    str | None, typer.Option(metavar="HH:MM-HH:MM", help="Hours in UTC in which to switch.")
]
_NotBefore = Annotated[
    str | None, typer.Option(metavar="WHEN", help=f"Download, but don't switch before: {WHEN}.")
]
_Deadline = Annotated[
    str | None, typer.Option(metavar="WHEN", help=f"Switch by then, window or not: {WHEN}.")
]
_Hold = Annotated[
    bool, typer.Option("--hold", help="Prepare all of it; tell nobody before 'update release'.")
]
_ReleaseAt = Annotated[
    str | None, typer.Option(metavar="WHEN", help=f"Prepare it, and tell them then: {WHEN}.")
]
_AbortAbove = Annotated[
    str, typer.Option(metavar="P%", help="Stop when more than so many of the finished failed.")
]
_AbortAfter = Annotated[
    int,
    typer.Option(min=1, max=_MOST, help="Conclude nothing from fewer; a wave may have no more."),
]
_KeepOpen = Annotated[
    bool,
    typer.Option("--keep-open", help="Go on for devices that join when the others have finished."),
]
_Again = Annotated[
    bool,
    typer.Option("--again", help="Also to devices that run it already, or rolled it back before."),
]
_Watch = Annotated[bool, typer.Option("--watch", help="Stay and show how far it is.")]


def push(
    context: typer.Context,
    images: _Images,
    device: _Devices = None,
    group: _Group = None,
    everyone: _Everyone = False,
    name: _Name = None,
    per_minute: _PerMinute = None,
    wave: _Wave = None,
    percent: _Percent = None,
    window: _Window = None,
    not_before: _NotBefore = None,
    deadline: _Deadline = None,
    hold: _Hold = False,
    release_at: _ReleaseAt = None,
    abort_above: _AbortAbove = "5%",
    abort_after: _AbortAfter = StopRule.after,
    keep_open: _KeepOpen = False,
    again: _Again = False,
    watch_: _Watch = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Have devices install images, in waves and at a pace; stops by itself when too many fail."""
    installation = common(context).installation() if dry_run else to_act_on(context)
    now = installation.clock.now()
    published = update_repository(installation.home, None).targets()
    wanted = Push(
        name=name or "",
        paths=tuple(images),
        selection=_selection(device or [], group, everyone),
        pace=_pace(per_minute, wave, percent),
        timing=replace(
            _timing(not_before, deadline, window, now), release_at=_moment(release_at, now)
        ),
        stop=_stop(abort_above, abort_after),
        keep_open=keep_open,
        again=again,
        hold=hold,
    )
    _warn_unsupported(wanted.paths, published, now)
    if dry_run:
        _show_plan(_preview(installation, wanted, published, now), as_json)
        return
    with_registry(
        installation,
        lambda registry: _start(registry, installation, wanted, published, watch_, as_json),
    )


def _warn_unsupported(
    paths: Sequence[str], published: Sequence[PublishedTarget], now: datetime
) -> None:
    for each in published:
        until = each.facts.support_until
        if each.path in paths and until is not None and until <= now:
            note(
                f"The support of {each.path} ended at {shown_time(until)}: whoever installs it is "
                "unsupported at once.",
                STYLES["warning"],
            )


def _preview(
    installation: Installation, wanted: Push, published: Sequence[PublishedTarget], now: datetime
) -> dict[str, int]:
    async def work(registry: Registry) -> dict[str, int]:
        rollout = await _planned(registry, wanted, published, now)
        return await rollouts.preview(registry, rollout)

    return with_registry(installation, work)


async def _start(
    registry: Registry,
    installation: Installation,
    wanted: Push,
    published: Sequence[PublishedTarget],
    stays: bool,
    as_json: bool,
) -> None:
    rollout = await _planned(registry, wanted, published, installation.clock.now())
    started = await rollouts.start(registry, installation.clock, rollout)
    warn_unserved(installation)
    if stays:
        note(f"Started {started.name}; it goes on when you stop watching.")
        conclude(await watch(registry, started.name, as_json=as_json))
        return
    if as_json:
        emit(rollout_json(RolloutView(started, {}, {})))
    else:
        say(started.name)
    if started.state is RolloutState.HELD:
        at = started.timing.release_at
        when = "" if at is None else f", or {shown_time(at)}"
        note(f"Held: nobody is told before 'muster update release {started.name}'{when}.")
    else:
        note(f"Started. Watch it: 'muster update rollout {started.name} --watch'.")


async def _planned(
    registry: Registry, wanted: Push, published: Sequence[PublishedTarget], now: datetime
) -> Rollout:
    rollout = rollouts.planned(_named(wanted, published, ""), published, now)
    if wanted.name:
        return rollout
    for number in count(1):
        ending = "" if number == 1 else f"-{number}"
        rollout = rollouts.planned(_named(wanted, published, ending), published, now)
        if not await _is_taken(registry, rollout.name):
            break
    return rollout


async def _is_taken(registry: Registry, name: str) -> bool:
    return await registry.read(lambda view: view.rollout(name)) is not None


def _named(wanted: Push, published: Sequence[PublishedTarget], ending: str) -> Push:
    if wanted.name:
        return wanted
    facts = [each.facts for each in published if each.path == wanted.paths[0]]
    text = f"{facts[0].model}-{facts[0].version}" if facts else "unknown"
    name = re.sub(r"[^A-Za-z0-9_-]", "-", text)[:_NAME_LENGTH] + ending
    return replace(wanted, name=name)


def _show_plan(found: dict[str, int], as_json: bool) -> None:
    if as_json:
        emit({"told": found.get(TOLD, 0), "skipped": {k: n for k, n in found.items() if k != TOLD}})
    else:
        rows = [(TOLD, f"{found.get(TOLD, 0):,}", "")]
        rows += [(k, f"{n:,}", _SKIPPED.get(k, "")) for k, n in found.items() if k != TOLD]
        table(("devices", "how many", "because"), rows)
    note("Nothing was changed.")


def _selection(devices: Sequence[str], group: str | None, everyone: bool) -> Selection:
    names = [name for each in devices for name in each.split(",") if name]
    if sum((bool(names), group is not None, everyone)) != 1:
        raise typer.BadParameter("give one of --device, --group and --all")
    ids = tuple(DeviceId(name) for name in dict.fromkeys(names))
    return Selection(ids, GroupName(group) if group else None, everyone)


def _pace(per_minute: int | None, wave: int | None, percent: str | None) -> Pace:
    if wave is not None and percent is not None:
        raise typer.BadParameter("give --wave or --percent, not both")
    if percent is None:
        return Pace(per_minute=per_minute, wave_size=wave)
    try:
        parts = [float(part.strip().rstrip("%")) for part in percent.split(",")]
        rising = parts if parts[-1] == EVERYBODY else [*parts, EVERYBODY]
        return Pace(per_minute=per_minute, percent=tuple(rising))
    except ValueError as error:
        raise typer.BadParameter(
            "percentages that rise, such as 1,10,100", param_hint="--percent"
        ) from error


def _stop(above: str, after: int) -> StopRule:
    try:
        return StopRule(float(above.strip().rstrip("%")) / 100, after)
    except ValueError as error:
        raise typer.BadParameter(
            "a percentage from 0% to 100%", param_hint="--abort-above"
        ) from error


def _window(text: str | None) -> str | None:
    if text is not None and _HOURS.fullmatch(text) is None:
        raise typer.BadParameter("hours such as 22:00-04:00", param_hint="--window")
    return text


def _moment(text: str | None, now: datetime) -> datetime | None:
    if text is None:
        return None
    try:
        return now + parse_duration(text)
    except (ValueError, OverflowError):
        pass
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no moment; write one {WHEN}") from None


def _timing(
    not_before: str | None, deadline: str | None, window: str | None, now: datetime
) -> Timing:
    begin, end = _moment(not_before, now), _moment(deadline, now)
    if end is not None and end <= now:
        # It would have every device switch at once, window or not.
        raise typer.BadParameter(
            f"{end:%Y-%m-%dT%H:%MZ} is past; to switch at once leave it and --window out",
            param_hint="--deadline",
        )
    if begin is not None and end is not None and end < begin:
        raise typer.BadParameter("it is before --not-before", param_hint="--deadline")
    return Timing(begin, end, _window(window))
