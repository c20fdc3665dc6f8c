"""`muster enroll`: the serial numbers that may claim."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from broker.core.records import Enrollment
from broker.entry.cli.files import open_lines
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import advance, counted, emit, note, progress, say, table
from broker.entry.cli.views import enrollment_json, shown_time
from broker.installation import Installation
from broker.ports import EnrollmentFilter, ReadTransaction, Registry
from broker.protocol.names import GroupName, SerialNumber
from broker.services import enrollments
from broker.services.enrollments import Check, Imported
from broker.services.problems import Problem, ProblemCode
from broker.services.serial_file import read_serials

commands = typer.Typer(help="Allow-lists: the serial numbers that may claim.", no_args_is_help=True)


@commands.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with a column 'serial', or JSON Lines.")],
    group: Annotated[str, typer.Option(help="Whose allow-list it is.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the good lines of a file with bad ones.")
    ] = False,
    dry_run: DryRunOption = False,
) -> None:
    """Put serial numbers on a group's allow-list.

    The whole file is checked before any of it is kept. An import that was interrupted is simply
    run again: what is there already isn't added twice.
    """
    installation = common(context).installation()
    with_registry(
        installation, lambda registry: enrollments.require_group(registry, GroupName(group))
    )
    check = _check(file)
    _report(check, file)
    if check.bad and not skip_bad:
        raise _refused(check, file)
    if dry_run:
        say(f"{check.good} serial numbers would be imported into {group}; nothing was changed.")
        return
    imported = with_registry(
        installation,
        lambda registry: _import(installation, registry, GroupName(group), file, check),
    )
    say(f"{imported.added} added, {imported.known} there already, {imported.bad} bad lines.")
    if check.good == 0:
        note(f"warning: {file} holds no serial number.", "yellow")


@commands.command("list")
def list_(
    context: typer.Context,
    group: Annotated[str, typer.Option(help="Whose allow-list it is.")],
    serial: Annotated[str | None, typer.Option(help="Only this serial number.")] = None,
    as_json: JsonOption = False,
) -> None:
    """The serial numbers on a group's allow-list."""
    wanted = EnrollmentFilter(GroupName(group), SerialNumber(serial) if serial else None)
    with_registry(common(context).installation(), lambda registry: _list(registry, wanted, as_json))


@commands.command("count")
def count(context: typer.Context, as_json: JsonOption = False) -> None:
    """How many serial numbers each group's allow-list has."""
    found = with_registry(common(context).installation(), _counts)
    if as_json:
        for group, number in found:
            emit({"group": group, "enrollments": number})
        return
    table(("group", "serial numbers"), [(group, str(number)) for group, number in found])


def _check(file: Path) -> Check:
    with open_lines(file) as lines, progress("checking", None) as bar:
        return enrollments.check(read_serials(lines), lambda by: advance(bar, by))


async def _import(
    installation: Installation, registry: Registry, group: GroupName, file: Path, check: Check
) -> Imported:
    with open_lines(file) as lines, progress("importing", check.good + check.bad) as bar:
        return await enrollments.import_serials(
            registry,
            installation.clock,
            group,
            read_serials(lines),
            lambda by: advance(bar, by),
        )


async def _list(registry: Registry, wanted: EnrollmentFilter, as_json: bool) -> None:
    """A list may be too long to hold; each page is read by itself."""
    await enrollments.require_group(registry, wanted.group)
    total = 0
    while page := await _page(registry, wanted):
        _show_page(page, as_json, is_first=total == 0)
        total += len(page)
        wanted = replace(wanted, after=page[-1].serial)
    if not as_json:
        note(f"{counted(total, 'serial number')}.")


async def _page(registry: Registry, wanted: EnrollmentFilter) -> list[Enrollment]:
    return await registry.read(lambda view: view.enrollments(wanted))


def _show_page(page: list[Enrollment], as_json: bool, *, is_first: bool) -> None:
    if as_json:
        for line in page:
            emit(enrollment_json(line))
        return
    rows = [(line.serial, shown_time(line.imported_at)) for line in page]
    table(("serial", "imported"), rows, show_columns=is_first)


async def _counts(registry: Registry) -> list[tuple[str, int]]:
    def work(view: ReadTransaction) -> list[tuple[str, int]]:
        names = sorted(group.name for group in view.groups())
        return [(name, view.count_enrollments(name)) for name in names]

    return await registry.read(work)


def _report(check: Check, file: Path) -> None:
    for bad in check.first_bad:
        note(f"{file}:{bad.number}: {bad.reason}", "yellow")
    if check.bad > len(check.first_bad):
        note(f"… and {check.bad - len(check.first_bad):,} more bad lines.", "yellow")


def _refused(check: Check, file: Path) -> Problem:
    return Problem(
        ProblemCode.SERIAL_FILE_INVALID,
        f"{file} has {check.bad:,} bad lines and {check.good:,} good ones; nothing was imported.",
        "Correct them, or import the good ones with --skip-bad.",
    )
