"""What the program says of itself: every command can be asked."""

from collections.abc import Iterator
from typing import Any

import pytest
import typer

from broker.entry.cli.main import program, run


def commands(command: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Each command's and each group's words, the program's own (none) first."""
    yield names
    for name, sub in getattr(command, "commands", {}).items():
        yield from commands(sub, *names, name)


@pytest.mark.parametrize("words", list(commands(typer.main.get_command(program))), ids=" ".join)
def test_each_command_says_what_it_does(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*words, "--help"]) == 0
    assert f"muster {' '.join(words)}".strip() in " ".join(capsys.readouterr().out.split())
