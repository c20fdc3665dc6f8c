"""Files that an operator names."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from broker.services.problems import Problem, ProblemCode


def read_text_file(path: Path, limit: int) -> bytes:
    """The file's bytes; at most one more than `limit`, so that too much is seen as such.

    Raises:
        Problem: FILE_UNREADABLE.
    """
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error


@contextmanager
def open_lines(path: Path) -> Iterator[TextIO]:
    """The file, to be read line by line; what isn't UTF-8 in it becomes U+FFFD.

    Raises:
        Problem: FILE_UNREADABLE.
    """
    try:
        file = path.open(encoding="utf-8", errors="replace", newline="")
    except OSError as error:
        raise _unreadable(path, error) from error
    with file:
        yield file


def _unreadable(path: Path, error: OSError) -> Problem:
    return Problem(
        ProblemCode.FILE_UNREADABLE,
        f"{path} can't be read: {error.strerror}.",
        "Check its name and who may read it.",
    )
