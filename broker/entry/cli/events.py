"""`muster events`: the audit log."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Final

import typer

from broker.core.records import Event, EventKind
from broker.entry.cli import events_audit
from broker.entry.cli.options import JsonOption, common, with_registry
from broker.entry.cli.output import emit, note, say, table
from broker.entry.cli.views import event_json, shown_time
from broker.ports.registry import EventFilter, ReadTransaction, Registry
from broker.protocol.codes import EXPLANATIONS, operators_remedy
from broker.protocol.names import ClaimName, DeviceId
from broker.services.problems import unknown_claim_certificate, unknown_device

_PAGE: Final = 1000
_PAUSE_S: Final = 0.5
_CODES: Final = {str(code): code for code in EXPLANATIONS}
_MEANINGS: Final = {str(code): said.message for code, said in EXPLANATIONS.items()}


commands = typer.Typer(invoke_without_command=True)
commands.command("export")(events_audit.export)
commands.command("verify")(events_audit.verify)


@commands.callback()
def events(
    context: typer.Context,
    device: Annotated[str | None, typer.Option(help="Of this device's name.")] = None,
    serial: Annotated[str | None, typer.Option(help="Of this serial number.")] = None,
    claim: Annotated[
        str | None, typer.Option("--claim", "--claimed-by", help="Of this claim certificate.")
    ] = None,
    kind: Annotated[EventKind | None, typer.Option(help="Of this kind.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="The newest so many.")] = 50,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="And what comes, as it comes.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """What was decided, about whom and why; the newest last."""
    if context.invoked_subcommand is not None:
        return
    wanted = EventFilter(device, serial, claim, kind, limit=limit)
    with_registry(
        common(context).installation(),
        lambda registry: _events(registry, wanted, follow=follow, as_json=as_json),
    )


async def _events(registry: Registry, wanted: EventFilter, *, follow: bool, as_json: bool) -> None:
    if not follow:  # which may wait for somebody's first event
        await registry.read(lambda view: _refuse_unknown(view, wanted))
    found = (await _page(registry, wanted))[::-1]
    if follow or as_json:
        _print_lines(found, as_json)
    else:
        _print_table(found)
    if follow:
        await _follow(registry, wanted, found, as_json)


def _refuse_unknown(view: ReadTransaction, wanted: EventFilter) -> None:
    """A name that nobody has and nobody had would be no event, and so no alarm."""
    device, claim = wanted.device_id, wanted.claim_name
    is_known = device is None or view.device(DeviceId(device)) is not None
    if device is not None and not (is_known or view.events(EventFilter(device, limit=1))):
        raise unknown_device(device)
    is_known = claim is None or view.claim_certificate(ClaimName(claim)) is not None
    if claim is not None and not (is_known or view.events(EventFilter(claim_name=claim, limit=1))):
        raise unknown_claim_certificate(claim)


async def _page(registry: Registry, wanted: EventFilter) -> list[Event]:
    """Newest first."""
    return await registry.read(lambda view: view.events(wanted))


async def _follow(
    registry: Registry, wanted: EventFilter, shown: Sequence[Event], as_json: bool
) -> None:
    last = _last_id(shown, 0)
    while True:
        await asyncio.sleep(_PAUSE_S)
        fresh = await _since(registry, wanted, last)
        _print_lines(fresh, as_json)
        last = _last_id(fresh, last)


async def _since(registry: Registry, wanted: EventFilter, last: int) -> list[Event]:
    """All events after `last`, oldest first, read page by page from the newest backwards."""
    fresh: list[Event] = []
    before: int | None = None
    while True:
        page = await _page(registry, replace(wanted, limit=_PAGE, before_id=before))
        newer = [event for event in page if event.id is not None and event.id > last]
        fresh += newer
        if len(newer) < _PAGE:
            return fresh[::-1]
        before = newer[-1].id


def _last_id(found: Sequence[Event], otherwise: int) -> int:
    return max((event.id for event in found if event.id is not None), default=otherwise)


def _print_lines(found: Sequence[Event], as_json: bool) -> None:
    for event in found:
        if as_json:
            emit(event_json(event))
        else:
            say("  ".join(_cells(event)))


def _print_table(found: Sequence[Event]) -> None:
    columns = ("at", "kind", "device", "serial", "claim", "group", "code", "detail")
    table(columns, [_cells(event) for event in found])
    if not found:
        note("No event fits.")


def _cells(event: Event) -> list[str]:
    times = f" (x{event.repeated})" if event.repeated > 1 else ""
    return [
        shown_time(event.at),
        event.kind.value,
        event.device_id or "-",
        event.serial_number or "-",
        event.claim_name or "-",
        event.group or "-",
        event.code or "-",
        f"{event.detail or _MEANINGS.get(event.code or '', '-')}{times}{_advice(event)}",
    ]


def _advice(event: Event) -> str:
    """What to type, where the device was told nothing that would help."""
    code = _CODES.get(event.code or "")
    remedy = None if code is None else operators_remedy(code, event.device_id)
    return "" if remedy is None else f" {remedy}"
