"""`muster enroll`: the serial numbers that may claim."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Final

import typer

from broker.core.records import Enrollment
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.files import open_lines
from broker.entry.cli.options import DryRunOption, JsonOption, common, with_registry
from broker.entry.cli.output import advance, counted, emit, note, progress, say, table
from broker.entry.cli.views import enrollment_json, shown_time
from broker.operating.installation import Installation
from broker.ports.registry import EnrollmentFilter, ReadTransaction, Registry
from broker.protocol.names import GroupName, SerialNumber
from broker.services import enrollments
from broker.services.enrollment_removal import Removal, remove_serials
from broker.services.enrollments import Check, Imported
from broker.services.problems import Problem, ProblemCode
from broker.services.serial_file import BadLine, read_serials

commands = typer.Typer(help="Allow-lists: the serial numbers that may claim.", no_args_is_help=True)

_NAMED: Final = 10


@commands.command("import")
def import_(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="CSV with a column 'serial', or JSON Lines.")],
    group: Annotated[str, typer.Option(help="Whose allow-list it is.")],
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the good lines of a file with bad ones.")
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Put serial numbers on a group's allow-list.

    The whole file is checked before any of it is kept. An import that was interrupted is simply
    run again: what is there already isn't added twice.
    """
    installation, name = to_act_on(context), GroupName(group)
    with_registry(installation, lambda registry: enrollments.require_group(registry, name))
    check = _check(file)
    _report(check, file)
    if check.bad and not skip_bad:
        raise _refused(check, file)
    imported = with_registry(
        installation,
        lambda registry: (
            _preview(registry, name, file)
            if dry_run
            else _import(installation, registry, name, file, check)
        ),
    )
    if as_json:
        emit({"group": name, "dry_run": dry_run, **asdict(imported)})
    else:
        _say_imported(imported, group, dry_run=dry_run)
    if check.good == 0:
        note(f"warning: {file} holds no serial number.", "yellow")


@commands.command("remove")
def remove(
    context: typer.Context,
    group: Annotated[str, typer.Option(help="Whose allow-list it is.")],
    serials: Annotated[
        list[str] | None, typer.Argument(metavar="SERIAL", help="The serial numbers.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of them, as for import: to take an import back.")
    ] = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take serial numbers off a group's allow-list that nobody has claimed.

    What a device has stays, and makes the exit status 1: see 'muster devices retire'.
    """
    if not serials and file is None:
        raise typer.BadParameter("name serial numbers, or give --file")
    installation, name = to_act_on(context), GroupName(group)
    wanted = [*map(SerialNumber, serials or []), *(_read(file) if file is not None else [])]
    done = with_registry(
        installation,
        lambda registry: remove_serials(
            registry, installation.clock, name, wanted, dry_run=dry_run
        ),
    )
    if as_json:
        emit({"group": name, "dry_run": dry_run, **asdict(done)})
    else:
        _say_removed(done, dry_run=dry_run)
    if done.claimed or (done.unknown and file is None):
        raise typer.Exit(1)


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


async def _preview(registry: Registry, group: GroupName, file: Path) -> Imported:
    with open_lines(file) as lines:
        return await enrollments.preview_import(registry, group, read_serials(lines))


def _say_imported(imported: Imported, group: str, *, dry_run: bool) -> None:
    bad = counted(imported.bad, "bad line")
    if dry_run:
        added = counted(imported.added, "serial number")
        say(
            f"{added} would be imported into {group}, {imported.known:,} there already, {bad}; "
            "nothing was changed."
        )
        return
    say(f"{imported.added} added, {imported.known} there already, {bad}.")


def _read(file: Path) -> list[SerialNumber]:
    """Those of a file of which no line is bad."""
    with open_lines(file) as lines:
        found = list(read_serials(lines))
    bad = [each for each in found if isinstance(each, BadLine)]
    if bad:
        raise Problem(
            ProblemCode.SERIAL_FILE_INVALID,
            f"{file}:{bad[0].number}: {bad[0].reason}; nothing was removed.",
            "Correct the file, or name the serial numbers.",
        )
    return [each for each in found if not isinstance(each, BadLine)]


def _say_removed(done: Removal, *, dry_run: bool) -> None:
    removed = counted(len(done.removed), "serial number")
    say(f"{removed} would be removed; nothing was changed." if dry_run else f"{removed} removed.")
    if done.claimed:
        note(
            f"A device has: {_some(done.claimed)}. They stay; to put such a device out for good: "
            "'muster devices retire'.",
            "yellow",
        )
    if done.unknown:
        note(f"Not on the list: {_some(done.unknown)}.", "yellow")


def _some(serials: Sequence[SerialNumber]) -> str:
    more = f", … ({len(serials):,})" if len(serials) > _NAMED else ""
    return ", ".join(serials[:_NAMED]) + more


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
        f"{file} has {counted(check.bad, 'bad line')} and {check.good:,} good; "
        "nothing was imported.",
        "Correct them, or import the good ones with --skip-bad.",
    )
