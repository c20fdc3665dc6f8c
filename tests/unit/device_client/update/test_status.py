"""What `muster-device` says of updates, and remembers of what it's told."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from device_client import cli
from device_client.update import config, steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.entry import FOLDER
from device_client.update.images import Running
from device_client.update.journal import Journal, Stage
from tests.support.update_repository import NOW, MadeRepository, assignment


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A device that has work, and a refusal behind it."""
    config.remember(tmp_path / FOLDER, None, "meter", "a")
    journal = Journal(tmp_path / FOLDER)
    over = datetime(2020, 1, 2, tzinfo=UTC)
    factory = Running(
        version="1.0.0",
        security_counter=3,
        support_until=over,
        vulnerability_contact="mailto:security@example.com",
    )
    journal.open({"main": factory})
    target = MadeRepository().add("meter/2/image", b"x")
    journal.change(steps.taken_up(journal.state, assignment(target), NOW))
    refusal = UpdateRefused(UpdateCode.METADATA_EXPIRED, "the timestamp is old")
    journal.change(steps.failed(journal.state, refusal, NOW, tried=1))
    return tmp_path


def test_for_people(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--state", str(state)]) == 0
    said = capsys.readouterr().out
    assert "meter, revision a" in said
    assert "main 1.0.0 from the factory (security counter 3)" in said
    assert "mailto:security@example.com" in said
    assert "agent:          not running" in said
    assert "clock:          believed; it's 20" in said
    assert "until 2020-01-02 00:00:00 UTC, which is over" in said
    assert "spring, checking: meter/2/image; one try in vain" in said
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


def test_what_an_update_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = tmp_path / "told.json"
    told.write_text('{"model": "meter", "update_hosts": ["*.cdn.example"]}')
    config.remember(tmp_path / FOLDER, told, None, None)
    journal = Journal(tmp_path / FOLDER)
    journal.open({})
    never = datetime(2199, 1, 1, 12, tzinfo=UTC)
    payload = assignment(
        MadeRepository().add("meter/2/image", b"x"),
        not_before=never,
        window="22:00-23:00",
        expires=never,
    )
    journal.change(steps.taken_up(journal.state, payload, NOW))
    journal.change(steps.chosen(journal.state, ()))
    journal.change(steps.moved(journal.state, Stage.READY))
    assert cli.main(["status", "--state", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "spring, ready: meter/2/image; switched at 2199-01-01 22:00:00 UTC; window 22:00" in said
    assert "images from:    *.cdn.example, blocks over MQTT" in said
    assert "update root:    missing" in said


def test_an_assignment_that_expired_waits_for_the_service(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal(state / FOLDER)
    journal.open({})
    assert journal.state.work is not None
    over = replace(journal.state.work, expires=datetime(2020, 1, 1, tzinfo=UTC))
    journal.change(replace(journal.state, work=over))
    cli.main(["status", "--state", str(state)])
    assert "expired: it waits for the service to say it again" in capsys.readouterr().out


def test_who_was_switched_too_often_today_is_switched_tomorrow(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config.remember(tmp_path / FOLDER, None, "meter", None)
    journal = Journal(tmp_path / FOLDER)
    journal.open({})
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)
    never = datetime(2199, 1, 1, tzinfo=UTC)
    payload = assignment(MadeRepository().add("meter/2/image", b"x"), expires=never)
    journal.change(steps.taken_up(journal.state, payload, NOW))
    journal.change(steps.chosen(journal.state, ()))
    journal.change(steps.moved(journal.state, Stage.READY))
    often = tuple(first + timedelta(minutes=n) for n in range(24))
    journal.change(replace(journal.state, switched=often))
    cli.main(["status", "--state", str(tmp_path)])
    tomorrow = first + timedelta(days=1)
    assert f"switched at {tomorrow:%F %T} UTC" in capsys.readouterr().out
