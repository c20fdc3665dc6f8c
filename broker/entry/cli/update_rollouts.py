"""`muster update rollouts|rollout|release|pause|…`: what becomes of what was pushed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from broker.core.rollout import Progress, RolloutInput
from broker.core.update_records import Part
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.device_acts import ReasonOption, checked_reason
from broker.entry.cli.options import (
    DryRunOption,
    JsonOption,
    common,
    warn_unserved,
    with_registry,
    with_registry_watched,
)
from broker.entry.cli.output import counted, emit, note, say
from broker.entry.cli.rollout_shown import (
    conclude,
    part_json,
    rollout_json,
    show_parts,
    show_rollout,
    show_rollouts,
    watch,
)
from broker.ports.registry import Registry
from broker.protocol.names import DeviceId
from broker.services import rollouts
from broker.services.rollouts import RolloutView

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The rollout's name.")]
_PAGE: Final = 1000


def add_to(commands: typer.Typer) -> None:
    """Adds the commands."""
    commands.command("rollouts")(list_)
    commands.command("rollout")(show)
    commands.command("release")(release)
    commands.command("pause")(pause)
    commands.command("resume")(resume)
    commands.command("cancel")(cancel)
    commands.command("retry")(retry)


def list_(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """All rollouts, the newest first."""
    found = with_registry(
        common(context).installation(), lambda registry: rollouts.newest(registry, limit)
    )
    if as_json:
        for view in found:
            emit(rollout_json(view))
        return
    show_rollouts(found)
    if not found:
        note("Nothing was pushed yet: 'muster update push IMAGE --all'.")


def show(
    context: typer.Context,
    name: NameArgument,
    watch_: Annotated[
        bool, typer.Option("--watch", help="Stay and show every change, until it has ended.")
    ] = False,
    devices: Annotated[
        bool, typer.Option("--devices", help="Each device, and why it isn't there.")
    ] = False,
    at: Annotated[Progress | None, typer.Option(help="Only devices that stand there.")] = None,
    as_json: JsonOption = False,
) -> None:
    """How far a rollout is."""
    installation = common(context).installation()
    if watch_:
        conclude(
            with_registry_watched(
                installation, lambda registry: watch(registry, name, as_json=as_json)
            )
        )
        return
    if devices or at is not None:
        wanted = _Parts(name, at, as_json)
        with_registry(installation, lambda registry: _show_parts(registry, wanted))
        return
    view = with_registry(installation, lambda registry: rollouts.look(registry, name))
    if as_json:
        emit(rollout_json(view))
    else:
        show_rollout(view)


def release(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Tell the devices of a rollout that was held."""
    _steer(context, name, RolloutInput.RELEASE, None, as_json=as_json)


def pause(
    context: typer.Context,
    name: NameArgument,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell nobody else for now; who has been told goes on."""
    _steer(context, name, RolloutInput.PAUSE, reason, as_json=as_json)


def resume(context: typer.Context, name: NameArgument, as_json: JsonOption = False) -> None:
    """Go on with a paused rollout."""
    _steer(context, name, RolloutInput.RESUME, None, as_json=as_json)


def cancel(
    context: typer.Context,
    name: NameArgument,
    reason: ReasonOption = None,
    as_json: JsonOption = False,
) -> None:
    """End it; devices that were told and haven't switched are called back."""
    _steer(context, name, RolloutInput.CANCEL, reason, as_json=as_json)


def retry(
    context: typer.Context,
    name: NameArgument,
    device: Annotated[
        list[str] | None,
        typer.Option("--device", metavar="ID", help="Only this one; repeatable."),
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Offer the same images again to devices that failed, or were called back."""
    installation, named = to_act_on(context), device or []
    found = with_registry(
        installation,
        lambda registry: (
            rollouts.retriable(registry, name, named)
            if dry_run
            else rollouts.retry(registry, installation.clock, name, named)
        ),
    )
    if as_json:
        emit({"name": name, "dry_run": dry_run, "queued": found})
    if dry_run:
        if not as_json:
            say(f"{counted(found, 'device')} would be in the queue again.")
        note("Nothing was changed.")
        return
    note(f"Queued again: {counted(found, 'device')}.")
    warn_unserved(installation)


@dataclass(frozen=True)
class _Parts:
    """Whose lines to show."""

    name: str
    at: Progress | None
    as_json: bool


async def _show_parts(registry: Registry, wanted: _Parts) -> None:
    await rollouts.look(registry, wanted.name)
    among: list[Progress] = [] if wanted.at is None else [wanted.at]
    after: DeviceId | None = None
    is_first = True
    while True:
        page = await _page(registry, wanted.name, among, after)
        if wanted.as_json:
            for part in page:
                emit(part_json(part))
        elif page or is_first:
            show_parts(page, is_first=is_first)
        if len(page) < _PAGE:
            return
        after, is_first = page[-1].device_id, False


async def _page(
    registry: Registry, name: str, among: Sequence[Progress], after: DeviceId | None
) -> list[Part]:
    return await registry.read(lambda view: view.parts(name, among, after, _PAGE))


def _steer(
    context: typer.Context, name: str, wanted: RolloutInput, reason: str | None, *, as_json: bool
) -> None:
    why = checked_reason(reason)
    installation = to_act_on(context)

    async def act(registry: Registry) -> RolloutView:
        await rollouts.steer(registry, installation.clock, name, wanted, why)
        return await rollouts.look(registry, name)

    view = with_registry(installation, act)
    if as_json:
        emit(rollout_json(view))
    note(f"{view.rollout.name} is {view.rollout.state}.")
