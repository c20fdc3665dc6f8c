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
    """A picture on a terminal; elsewhere lines of tab-separated columns, the first their names.

    A cell that is a level (`ok`, `warning`, `error`) is coloured.
    """
    console = _console(stderr=False)
    if not console.is_terminal:
        for row in (columns, *rows) if show_columns else rows:
            print("\t".join(_printable(cell).replace("\n", " ") for cell in row))
        return
    picture = Table(title=title or None, title_justify="left", show_header=show_columns)
    for column in columns:
        picture.add_column(column, overflow="fold")
    for row in rows:
        picture.add_row(*(Text(_printable(cell), STYLES.get(cell, "")) for cell in row))
    console.print(picture)


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
