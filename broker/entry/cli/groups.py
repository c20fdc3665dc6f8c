"""`muster group`: the rules by which claims become devices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from broker.core.records import EnrollmentGroup, Serials
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.files import read_text_file
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import counted, emit, note, say, table
from broker.entry.cli.views import change_json, group_json
from broker.ports.registry import ReadTransaction, Registry
from broker.protocol.names import GroupName
from broker.services import groups
from broker.services.group_file import MAX_GROUP_FILE, read_group_file
from broker.services.groups import GroupChange, written
from broker.services.problems import unknown_group

commands = typer.Typer(help="Enrollment groups: who may claim, and as what.", no_args_is_help=True)

Counted = tuple[EnrollmentGroup, int]
"""A group, and how long its allow-list is."""


@commands.command("apply")
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="TOML with tables \\[groups.NAME].")],
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make the groups what FILE says; groups that it doesn't name stay as they are."""
    wanted = read_group_file(read_text_file(file, MAX_GROUP_FILE))
    installation = to_act_on(context)
    changes = with_registry(
        installation,
        lambda registry: (
            groups.plan(registry, wanted)
            if dry_run
            else groups.apply(registry, installation.clock, wanted)
        ),
    )
    for change in changes:
        if as_json:
            emit(change_json(change, dry_run=dry_run))
        else:
            _show(change)
    _conclude(changes, dry_run)


@commands.command("list")
def list_(context: typer.Context, as_json: JsonOption = False) -> None:
    """All groups."""
    found = with_registry(common(context).installation(), _all)
    if as_json:
        for group, enrollments in found:
            emit(group_json(group, enrollments))
        return
    rows = [
        (
            group.name,
            f"{group.devices}/{group.quota}",
            str(enrollments) if group.serials is Serials.LISTED else "any",
            ", ".join(sorted(group.claim_certificates)) or "-",
            group.device_name,
        )
        for group, enrollments in found
    ]
    table(("name", "devices", "serials", "claim certificates", "device name"), rows)


@commands.command("show")
def show(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The group.")],
    as_json: JsonOption = False,
) -> None:
    """One group, field by field."""
    group, enrollments = with_registry(
        common(context).installation(), lambda registry: _one(registry, name)
    )
    if as_json:
        emit(group_json(group, enrollments))
        return
    fields = written(group) | {"devices": str(group.devices), "enrollments": str(enrollments)}
    table(("field", "value"), list(fields.items()), title=f"group {group.name}")


async def _all(registry: Registry) -> list[Counted]:
    def work(view: ReadTransaction) -> list[Counted]:
        found = sorted(view.groups(), key=lambda group: group.name)
        return [(group, view.count_enrollments(group.name)) for group in found]

    return await registry.read(work)


async def _one(registry: Registry, name: str) -> Counted:
    def work(view: ReadTransaction) -> Counted:
        group = view.group(GroupName(name))
        if group is None:
            raise unknown_group(name)
        return group, view.count_enrollments(group.name)

    return await registry.read(work)


def _show(change: GroupChange) -> None:
    if not change.fields:
        say(f"  {change.group.name}: unchanged")
        return
    say(f"{'+' if change.is_new else '~'} {change.group.name}")
    for field in change.fields:
        if not change.is_new:
            say(f"  - {field.field} = {field.before}")
        say(f"  + {field.field} = {field.after}")


def _conclude(changes: Sequence[GroupChange], dry_run: bool) -> None:
    changed = [change for change in changes if change.fields]
    if dry_run:
        note(f"Nothing was changed; {counted(len(changed), 'group')} would be.")
        return
    unchanged = len(changes) - len(changed)
    note(f"{counted(len(changed), 'group')} changed, {unchanged:,} unchanged.")
    for change in changed:
        group = change.group
        if group.serials is Serials.ANY:
            note(f"warning: group {group.name} is OPEN TO ANY SERIAL NUMBER.", "yellow")
        elif change.is_new:
            note(f"Next: 'muster enroll import FILE --group {group.name}'.")
