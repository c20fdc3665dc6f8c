"""Fitting a table to a terminal's width: which columns are shown, and how wide."""

from collections.abc import Sequence
from typing import Final

from rich.cells import cell_len

NOTHING: Final = {"", "-"}
"""What a cell says that has nothing to say."""
_UNBROKEN: Final = 26
"""Letters: a longer word, such as a hash, may go over several lines; a kind of event never does."""

Rows = Sequence[Sequence[str]]
"""The names of the columns, and under them the cells."""


def without_empty(columns: Sequence[str], rows: Rows) -> Rows:
    """The table without the columns of which no cell says anything; all of them, if there is no
    row."""
    if not rows:
        return [columns]
    said = [n for n in range(len(columns)) if any(row[n] not in NOTHING for row in rows)]
    kept = said or [0]
    return [[row[n] for n in kept] for row in (columns, *rows)]


def widths(shown: Rows, room: int) -> list[int] | None:
    """How wide each column is; none when a word would have to be broken.

    Args:
        shown: the table.
        room: letters that all columns may take together.
    """
    columns = list(zip(*shown, strict=True))
    wanted = [max(map(_length, column)) for column in columns]
    least = [max(map(_longest_word, column)) for column in columns]
    spare = room - sum(least)
    if spare < 0:
        return None
    # Whoever needs least more is served first, so that one long text can't starve the others.
    order = sorted(range(len(columns)), key=lambda n: wanted[n] - least[n])
    for place, n in enumerate(order):
        more = min(wanted[n] - least[n], spare // (len(order) - place))
        least[n] += more
        spare -= more
    return least


def _length(cell: str) -> int:
    return max((cell_len(line) for line in cell.splitlines()), default=0)


def _longest_word(cell: str) -> int:
    return max((min(cell_len(word), _UNBROKEN) for word in cell.split()), default=0)
