"""Reading an allow-list of serial numbers line by line, however long it is.

CSV with a header that has a column `serial`, or with a single column and no header, if its first
line has a digit; or JSON Lines, each line an object with a member `serial`. Memory stays at one
line.
"""

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import msgspec

from broker.protocol.names import SERIAL_NUMBER_PATTERN, SerialNumber
from broker.services.problems import Problem, ProblemCode

if TYPE_CHECKING:
    from _csv import Reader

MAX_LINE: Final = 65_536
"""Characters; a longer one is no list of serial numbers but some other file."""

COLUMN: Final = "serial"


class SerialForm(StrEnum):
    """How the file is written."""

    CSV = "csv"
    JSON_LINES = "jsonl"


@dataclass(frozen=True)
class BadLine:
    """A line that holds no serial number, and why."""

    number: int
    reason: str


class _Line(msgspec.Struct):
    serial: Annotated[str, msgspec.Meta(max_length=MAX_LINE)]


_SERIAL = re.compile(SERIAL_NUMBER_PATTERN)
_RULE = "1 to 64 letters, digits, '_', '.', ':' or '-'"


def form_of(first_line: str) -> SerialForm:
    """The form of the file that begins so; a serial number never begins with a brace."""
    return SerialForm.JSON_LINES if first_line.lstrip().startswith("{") else SerialForm.CSV


def read_serials(lines: Iterable[str]) -> Iterator[SerialNumber | BadLine]:
    """Each line's serial number, or why it has none; empty lines are passed over.

    Raises:
        Problem: SERIAL_FILE_INVALID when the file as a whole isn't such a list.
    """
    bounded = _bounded(lines)
    first = next(bounded, "")
    rest = _chain(first, bounded)
    if form_of(first) is SerialForm.JSON_LINES:
        return _from_json(rest)
    return _from_csv(rest)


def _bounded(lines: Iterable[str]) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if len(line) > MAX_LINE:
            raise _not_a_list(f"Line {number} has more than {MAX_LINE:,} characters.")
        # Spreadsheets put a byte order mark in front of what they export.
        yield line.removeprefix("\ufeff") if number == 1 else line


def _chain(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest


def _from_json(lines: Iterator[str]) -> Iterator[SerialNumber | BadLine]:
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield _checked(number, decoder.decode(line).serial)
        except (msgspec.DecodeError, RecursionError) as error:
            yield BadLine(number, f"not an object with a text member 'serial': {error}")


def _from_csv(lines: Iterator[str]) -> Iterator[SerialNumber | BadLine]:
    rows = csv.reader(lines, strict=True)
    first = _next_row(rows)
    if first is None:
        return
    column = _column(first)
    if column is None:
        column = 0
        yield _checked(rows.line_num, first[0])
    while (row := _next_row(rows)) is not None:
        if len(row) <= column:
            yield BadLine(rows.line_num, f"it has {len(row)} columns; {COLUMN!r} is missing")
        else:
            yield _checked(rows.line_num, row[column])


def _next_row(rows: "Reader") -> list[str] | None:
    try:
        return next((row for row in rows if any(cell.strip() for cell in row)), None)
    except csv.Error as error:
        raise _not_a_list(f"Line {rows.line_num} isn't CSV: {error}.") from error


def _column(header: list[str]) -> int | None:
    """Where the serial numbers stand; none when the first row is no header but a serial number."""
    titles = [cell.strip().lower() for cell in header]
    if COLUMN in titles:
        return titles.index(COLUMN)
    if len(header) == 1:
        _refuse_mistaken(header[0].strip())
        return None
    raise _not_a_list(f"No column is called {COLUMN!r}; the columns are {', '.join(titles)[:200]}.")


def _refuse_mistaken(first: str) -> None:
    """A serial number without a digit is rare, and a misspelled header isn't."""
    if first.replace("_", "").replace("-", "").isalpha():
        raise Problem(
            ProblemCode.SERIAL_FILE_INVALID,
            f"The first line, {first[:80]!r}, looks like a column's name, and isn't {COLUMN!r}.",
            f"Call the column {COLUMN!r}. If it's a serial number, put a line {COLUMN!r} above it. "
            "Nothing was changed.",
        )


def _checked(number: int, text: str) -> SerialNumber | BadLine:
    serial = text.strip()
    if _SERIAL.match(serial) is None:
        return BadLine(number, f"{serial[:80]!r} isn't a serial number ({_RULE})")
    return SerialNumber(serial)


def _not_a_list(message: str) -> Problem:
    return Problem(
        ProblemCode.SERIAL_FILE_INVALID,
        message,
        "Give CSV with a column 'serial' (or one column only), or JSON Lines with a member "
        "'serial'; nothing was imported.",
    )
