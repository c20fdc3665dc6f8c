"""One table of what was measured, against what is to hold."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Final


class Verdict(StrEnum):
    """How a figure compares with the one to hold."""

    HOLDS = "holds"
    FALLS_SHORT = "falls short"
    STATED = ""
    """Nothing has to hold."""
    NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    figure: str
    to_hold: str = ""
    verdict: Verdict = Verdict.STATED
    values: Mapping[str, float] = field(default_factory=dict)
    """The same figures for programs, and those behind them."""


def at_least(what: str, figure: str, value: float, bound: float, to_hold: str) -> Row:
    """A row that holds when `value` isn't below `bound`."""
    verdict = Verdict.HOLDS if value >= bound else Verdict.FALLS_SHORT
    return Row(what, figure, to_hold, verdict, {"value": value, "bound": bound})


def at_most(what: str, figure: str, value: float, bound: float, to_hold: str) -> Row:
    """A row that holds when `value` isn't above `bound`."""
    verdict = Verdict.HOLDS if value <= bound else Verdict.FALLS_SHORT
    return Row(what, figure, to_hold, verdict, {"value": value, "bound": bound})


def not_measured(what: str, reason: str, to_hold: str = "") -> Row:
    """A row without a figure, which says why."""
    return Row(what, f"not measured: {reason}", to_hold, Verdict.NOT_MEASURED)


_HEADER: Final = ("Measured", "Figure", "To hold", "")


def as_table(rows: Sequence[Row]) -> str:
    """The rows for people, in Markdown."""
    lines = [(row.what, row.figure, row.to_hold, row.verdict.value) for row in rows]
    if not lines:
        return ""
    widths = [max(len(cell) for cell in column) for column in zip(_HEADER, *lines, strict=True)]
    ruler = tuple("-" * width for width in widths)
    return "\n".join(_line(cells, widths) for cells in (_HEADER, ruler, *lines))


def as_json(machine: Mapping[str, str], rows: Sequence[Row]) -> str:
    """The rows for programs."""
    return json.dumps({"machine": dict(machine), "rows": [asdict(row) for row in rows]}, indent=2)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell.ljust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join(padded)} |"
