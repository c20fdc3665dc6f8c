"""What docs/testing.md promises to other projects, word for word."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.commands import plain_environment

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "testing.md"


def example() -> str:
    """The document's only Python block."""
    _, block = DOCUMENT.read_text().split("```python\n")
    return block.split("```")[0]


def run_pytest(
    folder: Path, *options: str, within: float = 100
) -> "subprocess.CompletedProcess[str]":
    """In a project that isn't this one."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=plain_environment() | {"PATH": path},
        capture_output=True,
        text=True,
        timeout=within,
    )


def test_the_example_is_ten_lines_and_passes(tmp_path: Path) -> None:
    assert len(example().strip().splitlines()) <= 10
    (tmp_path / "test_example.py").write_text(example())
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_a_device_that_is_no_member_fails_the_example(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(example().replace("check=True", "input=b''"))
    text = (tmp_path / "test_example.py").read_text().replace('"claim", ', '"status", ')
    (tmp_path / "test_example.py").write_text(text)
    done = run_pytest(tmp_path)
    assert "1 failed" in done.stdout, done.stdout + done.stderr


def test_pytest_loads_none_of_the_service_for_it(tmp_path: Path) -> None:
    """The plugin is there in every project where the device agent is installed."""
    (tmp_path / "test_modules.py").write_text(
        "import sys\n\n"
        "def test_modules():\n"
        "    assert 'broker.testing.plugin' in sys.modules\n"
        "    others = {'typer', 'sqlalchemy', 'amqtt', 'broker.composition.app'}\n"
        "    assert not others & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
