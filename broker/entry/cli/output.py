"""What the commands print: results to stdout, everything else to stderr; pictures on terminals."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from broker.entry.cli.narrow import NOTHING, widths, without_empty

_FRAME: Final = 3
"""Letters that a column's frame takes."""
_NUMBERS: Final = 28
"""Columns for a short bar, how many of 100,000, and the time."""
STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def say(text: str) -> None:
    """A line of the result."""
    print(_printable(text), flush=True)


def note(text: str, style: str = "") -> None:
    """A line about the result, to stderr."""
    _console(stderr=True).print(Text(_printable(text), style), soft_wrap=True)


def emit(value: object) -> None:
    """One JSON value on one line of stdout."""
    print(_escaped(msgspec.json.encode(value).decode()), flush=True)


def counted(number: int, noun: str) -> str:
    """`1 device`, `2,000 devices`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    title: str = "",
    *,
    show_columns: bool = True,
) -> None:
    """A picture on a terminal, or a line for each cell where it's too narrow for one; elsewhere
    lines of tab-separated columns, the first their names.

    On a terminal each call is a picture of its own, without columns in which nothing is. A cell
    that is a level (`ok`, `warning`, `error`) is coloured.
    """
    console = _console(stderr=False)
    if not console.is_terminal:
        for row in (columns, *rows) if show_columns else rows:
            print("\t".join(_printable(cell).replace("\n", " ") for cell in row))
        return
    shown = without_empty(columns, [[_printable(cell) for cell in row] for row in rows])
    fitting = widths(shown, console.width - _FRAME * len(shown[0]) - 1)
    if fitting is None:
        _print_records(console, shown, title)
        return
    picture = Table(title=title or None, title_justify="left")
    for column, width in zip(shown[0], fitting, strict=True):
        picture.add_column(column, overflow="fold", width=width)
    for row in shown[1:]:
        picture.add_row(*(_cell(cell) for cell in row))
    console.print(picture)


def _print_records(console: Console, shown: Sequence[Sequence[str]], title: str) -> None:
    if title:
        console.print(Text(title))
    for row in shown[1:]:
        for column, cell in zip(shown[0], row, strict=True):
            if cell not in NOTHING:
                console.print(Text(f"{column}: ").append_text(_cell(cell)), soft_wrap=True)
        console.print()


def _cell(text: str) -> Text:
    return Text(text, STYLES.get(text, ""))


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Progress]:
    """A bar on stderr while the block runs, moved by `advance`; none without a terminal."""
    console = _console(stderr=True)
    # The numbers matter more than the words where there isn't room for both.
    words = Column(no_wrap=True, overflow="ellipsis", max_width=max(8, console.width - _NUMBERS))
    bar = Progress(
        TextColumn("{task.description}", table_column=words),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    bar.add_task(description, total=total)
    with bar:
        yield bar


def advance(bar: Progress, by: int) -> None:
    """Moves the bar that `progress` made."""
    bar.advance(bar.task_ids[0], by)


def _console(*, stderr: bool) -> Console:
    # Made anew each time: tests and pipes replace the streams while the process lives.
    return Console(stderr=stderr, highlight=False, markup=False, emoji=False)


def _printable(text: str) -> str:
    """Without what would steer a terminal: parts of it were sent by devices."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "�" for letter in text)


def _escaped(text: str) -> str:
    """The same JSON: what steers a terminal stands in strings only, where it may be escaped."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in text)
