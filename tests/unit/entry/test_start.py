"""The command's entry point."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_version_is_said_without_the_commands_imports() -> None:
    program = (
        "import sys; sys.argv = ['muster', '--version']\n"
        "from broker.entry.cli.start import main; main()\n"
        "print(sorted({'typer', 'sqlalchemy', 'cryptography'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    version, imported = done.stdout.splitlines()
    assert version[0].isdigit()
    assert imported == "[]"


def test_it_is_what_is_installed_as_muster() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["scripts"]["muster"] == "broker.entry.cli.start:main"
