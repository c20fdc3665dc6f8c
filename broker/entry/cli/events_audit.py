"""`muster events export` and `verify`: the whole audit log, kept elsewhere and compared with its
seals."""

from dataclasses import asdict
from typing import Annotated, Final

import typer

from broker.core.findings import Level
from broker.entry.cli.options import JsonOption, common, with_registry
from broker.entry.cli.output import emit, say
from broker.entry.cli.views import event_json
from broker.operating.auditing import verified
from broker.operating.installation import Installation
from broker.ports.registry import Registry

_PAGE: Final = 1000


def export(
    context: typer.Context,
    after: Annotated[int, typer.Option(min=0, help="Only what comes after this number.")] = 0,
) -> None:
    """All events, the oldest first, a JSON object a line."""
    with_registry(common(context).installation(), lambda registry: _export(registry, after))


async def _export(registry: Registry, after: int) -> None:
    while True:
        last = after
        page = await registry.read(lambda view: view.events_after(last, _PAGE))  # noqa: B023
        for event in page:
            emit(event_json(event))
            after = event.id or after
        if len(page) < _PAGE:
            return


def verify(context: typer.Context, as_json: JsonOption = False) -> None:
    """Compare all events with their seals; exit status 1 when they aren't what was sealed."""
    installation = common(context).installation()
    if with_registry(installation, lambda registry: _verify(installation, registry, as_json)):
        raise typer.Exit(1)


async def _verify(installation: Installation, registry: Registry, as_json: bool) -> bool:
    is_wrong = False
    async for finding in verified(installation, registry):
        is_wrong = is_wrong or finding.level is Level.ERROR
        if as_json:
            emit(asdict(finding))
        else:
            remedy = f"\n→ {finding.remedy}" if finding.remedy else ""
            say(f"{finding.level}: {finding.subject}: {finding.message}{remedy}")
    return is_wrong
