"""The plugin's other half: the same example of docs/testing.md, in containers of its own."""

from pathlib import Path

from tests.containers.site import ROOT
from tests.integration.test_testing_plugin import example, run_pytest


def test_the_example_passes_in_containers(tmp_path: Path) -> None:
    (tmp_path / "test_example.py").write_text(example())
    done = run_pytest(tmp_path, f"--muster-compose={ROOT / 'compose.yaml'}", within=800)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
