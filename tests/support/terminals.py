"""A command at a terminal of its own: what it draws, and what its terminal is like afterwards."""

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from tests.support.commands import command, plain_environment

_COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")
_MOVE: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]|[\r\n]+")
_ECHO: Final = "^C"
"""By which the terminal itself shows that it was pressed."""
_CURSOR: Final = re.compile(r"\x1b\[\?25[lh]")
_LONGEST_S: Final = 60.0


class Terminal:
    """The operator's end of it."""

    def __init__(self, master: int, process: "subprocess.Popen[bytes]", before: list[Any]) -> None:
        self._master = master
        self._process = process
        self._before = before
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self.raw = ""

    @property
    def coloured(self) -> list[str]:
        """All lines that were ever drawn, without what moves the cursor."""
        return _MOVE.split(self.raw)

    @property
    def lines(self) -> list[str]:
        """The same without colours."""
        return [_COLOUR.sub("", line).replace(_ECHO, "") for line in self.coloured]

    def until(self, holds: Callable[[list[str]], bool]) -> None:
        """Reads until that holds of the lines."""
        by = time.monotonic() + _LONGEST_S
        while not holds(self.lines):
            assert time.monotonic() < by, self.lines[-5:]
            assert self._read(), self.lines[-5:]

    def press(self, key: bytes) -> None:
        """As a keyboard does: the terminal makes a signal of Ctrl-C."""
        os.write(self._master, key)

    def end(self) -> int:
        """The exit status, once everything has been read."""
        while self._read():
            pass
        return self._process.wait(_LONGEST_S)

    def assert_left_as_it_was(self) -> None:
        """Not raw, echoing, with its cursor."""
        assert termios.tcgetattr(self._master) == self._before
        assert ([*_CURSOR.findall(self.raw), "\x1b[?25h"])[-2:].count("\x1b[?25l") == 0

    def _read(self) -> bool:
        """Whether there may be more."""
        if select.select([self._master], [], [], 1.0)[0]:
            try:
                data = os.read(self._master, 65_536)
            except OSError:  # EIO: nobody has the other end open any more
                return False
            self.raw += self._decoder.decode(data)
        return True


@contextmanager
def terminal(columns: int, *arguments: str | Path) -> Iterator[Terminal]:
    """`muster` with these arguments in the foreground of a terminal that is so wide."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    hidden = ("COLUMNS", "LINES", "NO_COLOR", "CI")
    environment = {k: v for k, v in plain_environment().items() if k not in hidden}
    process = subprocess.Popen(
        command(*arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**environment, "TERM": "xterm-256color"},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
    )
    before = termios.tcgetattr(slave)
    os.close(slave)
    try:
        yield Terminal(master, process, before)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(master)
