"""What `muster-device` says of updates, and remembers of what it's told."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from device_client import cli
from device_client.update import config, steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.entry import FOLDER
from device_client.update.images import Running
from device_client.update.journal import Journal
from tests.support.update_repository import NOW, MadeRepository, assignment


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A device that has work, and a refusal behind it."""
    config.remember(tmp_path / FOLDER, None, "meter", "a")
    journal = Journal(tmp_path / FOLDER)
    over = datetime(2020, 1, 2, tzinfo=UTC)
    journal.open({"main": Running(version="1.0.0", security_counter=3, support_until=over)})
    target = MadeRepository().add("meter/2/image", b"x")
    journal.change(steps.taken_up(journal.state, assignment(target), NOW))
    refusal = UpdateRefused(UpdateCode.METADATA_EXPIRED, "the timestamp is old")
    journal.change(steps.failed(journal.state, refusal, NOW))
    return tmp_path


def test_for_people(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--state", str(state)]) == 0
    said = capsys.readouterr().out
    assert "main 1.0.0 (security counter 3)" in said
    assert "until 2020-01-02 00:00:00 UTC, which is over" in said
    assert "spring, checking: meter/2/image" in said
    assert "metadata_expired at 2026-11-23 12:00:00 UTC: the timestamp is old" in said
    assert "muster update status" in said, "what to do next"


def test_for_programs(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--json", "--state", str(state)]) == 0
    software = json.loads(capsys.readouterr().out)["software"]
    assert software["running"] == {"main": "1.0.0"}
    assert software["stage"] == "checking"
    assert software["refusal"]["code"] == "metadata_expired"


def test_without_a_model_there_is_nothing_to_say(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["status", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out)["software"] is None
