"""The process is killed at every step, twice over."""

import subprocess
import sys
from pathlib import Path


def test_kills_at_every_step_end_with_the_one_identity(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.dying_device", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=Path(__file__).resolve().parents[3],
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 40
