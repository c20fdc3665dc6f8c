"""What is shipped for systemd: hardened, and what systemd itself would accept."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_is_hardened(unit: Path) -> None:
    lines = set(unit.read_text().splitlines())
    assert {
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ProtectHome=yes",
        "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service",
    } <= lines


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_has_no_objection(unit: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:  # the machine has no systemd, and no use for the unit
        return
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True, timeout=60)
    said = [line for line in done.stderr.splitlines() if line.strip()]
    # Muster isn't installed under /opt here.
    assert [line for line in said if "is not executable: No such file" not in line] == []


def test_there_are_units_for_everything_that_runs() -> None:
    assert [unit.name for unit in UNITS] == [
        "muster-broker@.service",
        "muster-device.service",
        "muster.service",
    ]
