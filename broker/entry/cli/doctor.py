"""`muster doctor`: what is wrong with this installation, and what to do about it."""

import asyncio
from collections import Counter
from dataclasses import asdict
from typing import Annotated, Final

import typer

from broker.core.findings import Finding, Level
from broker.entry.cli.options import JsonOption, common
from broker.entry.cli.output import emit, note, say, table
from broker.operating.examination import examine

_ORDER: Final = [Level.ERROR, Level.WARNING, Level.OK]


def doctor(
    context: typer.Context,
    show_all: Annotated[bool, typer.Option("--all", help="What is fine, too.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Look the installation over; exit status 1 when there are errors."""
    findings = asyncio.run(examine(common(context).installation()))
    findings.sort(key=lambda finding: _ORDER.index(finding.level))
    if as_json:
        for finding in findings:
            emit(asdict(finding))
    else:
        _show(findings, show_all)
    if any(finding.level is Level.ERROR for finding in findings):
        raise typer.Exit(1)


def _show(findings: list[Finding], show_all: bool) -> None:
    shown = [finding for finding in findings if show_all or finding.level is not Level.OK]
    if shown:
        table(("level", "what", "finding"), [_row(finding) for finding in shown])
    counts = Counter(finding.level for finding in findings)
    say(f"{counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings, {counts[Level.OK]} fine.")
    if not show_all and counts[Level.OK]:
        note("'muster doctor --all' shows what is fine, too.")


def _row(finding: Finding) -> tuple[str, str, str]:
    remedy = f"\n→ {finding.remedy}" if finding.remedy else ""
    return finding.level.value, f"{finding.check}\n{finding.subject}", finding.message + remedy
