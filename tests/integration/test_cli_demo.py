"""`muster demo`: from nothing to members of a fleet, and nothing left behind."""

import subprocess
from pathlib import Path

import pytest

from broker.entry.cli.main import run
from tests.support.commands import command, plain_environment


def demo(folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    environment = {**plain_environment(), "TMPDIR": str(folder), "MUSTER_CLAIM__PORT": "1"}
    return subprocess.run(
        command("demo", *options), capture_output=True, text=True, env=environment, timeout=100
    )


def test_devices_become_members_and_nothing_stays(tmp_path: Path) -> None:
    done = demo(tmp_path, "--devices", "3")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split("\t") == ["device", "state", "certificate", "expires", "claimed in"]
    assert [line.split("\t")[:2] for line in lines[:3]] == [
        [f"thermo-T-{number:04}", "active"] for number in (1, 2, 3)
    ]
    assert lines[-1].startswith("All 3 devices are members of the fleet")
    assert list(tmp_path.iterdir()) == []


def test_all_devices_update_but_the_one_that_fails_its_check_and_all_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = demo(tmp_path, "--devices", "8", "--keep")
    assert done.returncode == 0, done.stderr
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    ended = {row[0]: (row[1], row[3]) for row in rows if len(row) == 5 and row[1] != "active"}
    assert ended.pop("thermo-T-0007") == ("rolled_back", "health_failed")
    assert ended.pop("device") == ("stands at", "code")
    assert set(ended.values()) == {("installed", "-")}
    (kept,) = tmp_path.iterdir()
    slots = {place.name: place / "update/components/main" for place in (kept / "devices").iterdir()}
    assert not (slots.pop("T-0007") / "current").exists()
    image = (kept / "thermometer.bin").read_bytes()
    assert [(slot / "current/image").read_bytes() == image for slot in slots.values()] == [True] * 7
    assert run(["--home", str(kept / "home"), "devices", "show", "thermo-T-0001", "--json"]) == 0
    assert '"state":"active"' in capsys.readouterr().out
