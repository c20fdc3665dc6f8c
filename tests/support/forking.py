"""Commands that end soon, each in a process that was forked: no time goes into imports."""

import asyncio
import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final


class _Forker:
    """A process that has imported all of `muster`, for one command at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def run(self, order: Mapping[str, object]) -> int:
        """The exit status of what it forks. Blocks."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        self._answer("pid")
        return self._answer("status")

    def kill(self) -> None:
        """With what it has forked."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self.end()

    def end(self) -> None:
        """Lets it end, which it does when nothing can ask it any more."""
        with self._process:
            pass

    def _answer(self, key: str) -> int:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "tests.support.forker has ended; what it said is in the captured stderr"
        return int(json.loads(line)[key])


_idle: Final[list[_Forker]] = []


async def muster(arguments: list[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
    """A command line of the operator's: status, stdout, stderr."""
    forker = _idle.pop() if _idle else await asyncio.to_thread(_Forker)
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        order = {
            "module": "broker.entry.cli.main",
            "arguments": arguments,
            "log": str(out),
            "errors": str(err),
            "environment": dict(environment),
        }
        try:
            status = await asyncio.to_thread(forker.run, order)
        except BaseException:
            forker.kill()
            raise
        _idle.append(forker)
        return status, out.read_text(), err.read_text()


@atexit.register
def _end() -> None:
    for forker in _idle:
        forker.end()
