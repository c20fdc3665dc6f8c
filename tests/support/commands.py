"""Running `muster` as an operator does: in this process, or in one of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.entry.cli.main import run


@dataclass(frozen=True)
class Outcome:
    """What one command line led to."""

    status: int
    out: str
    err: str

    def json(self) -> list[Any]:
        """The JSON objects of stdout, one a line; fails on anything else there."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class Operator:
    """Somebody with a terminal, a home and files; the terminal's own settings don't count."""

    home: Path
    folder: Path
    capture: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str | Path) -> Outcome:
        """Runs a command line on the home."""
        return self.unnamed("--home", self.home, *arguments)

    def unnamed(self, *arguments: str | Path) -> Outcome:
        """Runs a command line that finds the home by itself, or needs none."""
        self.capture.readouterr()
        status = run([*map(str, arguments)])
        out, err = self.capture.readouterr()
        return Outcome(status, out, err)

    def succeeds(self, *arguments: str | Path) -> Outcome:
        """Runs a command line that has to work."""
        outcome = self(*arguments)
        assert outcome.status == 0, outcome.err
        return outcome

    def file(self, name: str, text: str) -> Path:
        """A file of the operator's."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path


def command(*arguments: str | Path) -> list[str]:
    """The command line for a process of its own."""
    return [sys.executable, "-m", "broker.entry.cli.main", *map(str, arguments)]


def plain_environment() -> dict[str, str]:
    """This process's environment without any of Muster's settings."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MUSTER_")}


@contextmanager
def service(home: Path, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """`muster up`, ready for claims; killed at the end of the block if it still runs."""
    with subprocess.Popen(
        command("--home", home, "up", "--log-format", "json", *options),
        stderr=subprocess.PIPE,
        text=True,
        env=plain_environment(),
    ) as process:
        try:
            _await_ready(process)
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def _await_ready(process: "subprocess.Popen[str]") -> None:
    """Blocks for as long as the service is silent; the test's own time limit ends that."""
    said = []
    assert process.stderr is not None
    for line in process.stderr:
        said.append(line)
        if '"ready"' in line:
            return
    pytest.fail("the service ended before it was ready: " + "".join(said))
