"""A long import that is killed half-way is simply run again."""

import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.commands import Operator, command, plain_environment

LINES = 60_000
GROUP = '[groups.lamps]\ndevice_name = "lamp-{serial}"\nquota = 5\n'


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with a group and a long list of serial numbers."""
    installed = Operator(tmp_path / "home", tmp_path, capsys)
    installed.succeeds("init", installed.home)
    installed.succeeds("group", "apply", installed.file("groups.toml", GROUP))
    installed.file("serials.csv", "serial\n" + "".join(f"A{n}\n" for n in range(LINES)))
    return installed


def chunks(operator: Operator) -> int:
    """How many chunks have been committed, by their audit events."""
    with closing(sqlite3.connect(operator.home / "registry.db")) as database:
        question = "SELECT count(*) FROM event WHERE kind = 'enrollments.imported'"
        number: int = database.execute(question).fetchone()[0]
        return number


def test_a_killed_import_is_run_again(operator: Operator) -> None:
    serials = operator.folder / "serials.csv"
    arguments = ("enroll", "import", serials, "--group", "lamps")
    with subprocess.Popen(
        command("--home", operator.home, *arguments),
        stdout=subprocess.DEVNULL,
        env=plain_environment(),
    ) as process:
        while chunks(operator) == 0:
            assert process.poll() is None, "it ended before anything was committed"
        process.kill()
    assert process.returncode != 0, "it was done before it could be killed"
    kept = chunks(operator) * 5_000
    again = operator.succeeds(*arguments)
    assert again.out == f"{LINES - kept} added, {kept} there already, 0 bad lines.\n"
    (lamps,) = operator.succeeds("enroll", "count", "--json").json()
    assert lamps["enrollments"] == LINES
