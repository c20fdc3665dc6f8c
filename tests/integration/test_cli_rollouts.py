"""`muster update push` and what follows it, as an operator types it."""

import asyncio
import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from broker.adapters.run_lock import held
from broker.protocol.updates import Phase
from tests.support.acting import joined, run_muster
from tests.support.commands import Operator
from tests.support.stack import Stack
from tests.support.update_devices import update_device, workshop_of

IMAGE = "meter/1.0.0/firmware.bin"
LOST = ("updates", "error")


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    """An operator with one published image, and nobody in the fleet."""
    operator = Operator(tmp_path / "home", tmp_path, capsys)
    operator.succeeds("init", operator.home)
    image, keys = operator.file("firmware.bin", "firmware"), operator.folder / "keys"
    operator.succeeds("update", "init", "--keys", keys, "--no-passphrase")
    said = ("--model", "meter", "--version", "1.0.0", "--security-counter", "1")
    operator.succeeds("update", "add", image, *said)
    operator.succeeds("update", "sign", "--yes", "--key", keys / "targets-1.key")
    operator.succeeds("update", "publish")
    return operator


def test_a_rollout_is_named_after_its_image_and_steered_by_its_name(operator: Operator) -> None:
    assert operator.succeeds("update", "push", IMAGE, "--all").out == "meter-1-0-0\n"
    assert operator.succeeds("update", "push", IMAGE, "--all").out == "meter-1-0-0-2\n"
    operator.succeeds("update", "pause", "meter-1-0-0", "--reason", "lunch")
    (newest, paused) = operator.succeeds("update", "rollouts", "--json").json()
    assert (newest["name"], newest["state"]) == ("meter-1-0-0-2", "running")
    assert (paused["state"], paused["reason"]) == ("paused", "lunch")
    assert "paused: lunch" in operator("doctor").out
    operator.succeeds("update", "resume", "meter-1-0-0")
    operator.succeeds("update", "cancel", "meter-1-0-0")
    assert "[rollout_state]" in operator("update", "resume", "meter-1-0-0").err
    (status,) = operator.succeeds("update", "status", "--json").json()
    assert [each["name"] for each in status["rollouts"]] == ["meter-1-0-0", "meter-1-0-0-2"]
    assert status["unsupported_devices"] == 0


def test_a_repository_that_is_gone_is_missed_when_something_was_rolled_out(
    operator: Operator,
) -> None:
    def missed() -> list[str]:
        findings = operator("doctor", "--json").json()
        return [each["remedy"] for each in findings if (each["check"], each["level"]) == LOST]

    operator.succeeds("update", "push", IMAGE, "--all")
    assert missed() == []
    shutil.rmtree(operator.home / "updates")
    assert missed() == ["Restore updates/ from the backup of this home."]


def test_a_rollout_is_steered_in_json(operator: Operator) -> None:
    operator.succeeds("update", "push", IMAGE, "--all", "--hold", "--name", "r1")
    for act, state in (("release", "running"), ("pause", "paused"), ("resume", "running")):
        (said,) = operator.succeeds("update", act, "r1", "--json").json()
        assert (said["name"], said["state"]) == ("r1", state)
    (tried,) = operator.succeeds("update", "retry", "r1", "--dry-run", "--json").json()
    (queued,) = operator.succeeds("update", "retry", "r1", "--json").json()
    assert tried == {"name": "r1", "dry_run": True, "queued": 0}
    assert queued == {**tried, "dry_run": False}
    (said,) = operator.succeeds("update", "cancel", "r1", "--reason", "old", "--json").json()
    assert (said["state"], said["reason"]) == ("cancelled", "old")


def test_nobody_signs_without_being_asked_or_saying_yes(operator: Operator) -> None:
    keys = operator.folder / "keys"
    said = ("--model", "meter", "--version", "1.1.0", "--security-counter", "1")
    operator.succeeds("update", "add", operator.folder / "firmware.bin", *said)
    refused = operator("update", "sign", "--key", keys / "targets-1.key")
    assert refused.status == 1
    assert "[confirmation_missing]" in refused.err
    assert "--yes" in refused.err
    assert "is signed by" not in refused.out


def test_a_rollout_is_held_until_its_release(operator: Operator) -> None:
    held = operator.succeeds("update", "push", IMAGE, "--all", "--hold", "--name", "r1")
    assert "muster update release r1" in held.err
    planned = operator.succeeds("update", "push", IMAGE, "--all", "--release-at", "2h")
    assert "Held: nobody is told before" in planned.err
    assert "[rollout_state]" in operator("update", "pause", "r1").err
    for _ in range(2):
        assert "r1 is running" in operator.succeeds("update", "release", "r1").err
    (found,) = operator.succeeds("update", "rollout", "r1", "--json").json()
    assert (found["state"], found["number"]) == ("running", 3)


def test_the_json_of_a_rollout_keeps_its_members(operator: Operator) -> None:
    options = ("--percent", "1,10", "--per-minute", "60", "--window", "22:00-04:00")
    more = ("--deadline", "7d", "--abort-above", "2.5%", "--abort-after", "3", "--name", "r1")
    operator.succeeds("update", "push", IMAGE, "--all", *options, *more)
    (found,) = operator.succeeds("update", "rollout", "r1", "--json").json()
    assert set(found) == {
        *("name", "number", "state", "reason", "started_at", "state_at", "images", "selection"),
        *("pace", "timing", "stop", "keep_open", "again", "wave", "devices", "progress", "codes"),
        "prepared",
    }
    assert found["pace"] == {"per_minute": 60, "percent": [1.0, 10.0, 100.0], "wave_size": None}
    assert found["stop"] == {"above": 0.025, "after": 3}
    assert found["timing"]["window"] == "22:00-04:00"
    deadline = datetime.fromisoformat(found["timing"]["deadline"])
    assert abs(deadline - datetime.now(UTC) - timedelta(days=7)) < timedelta(minutes=5)
    assert "wave 1 of 3, 60 a minute" in operator.succeeds("update", "rollout", "r1").out


def test_a_dry_run_starts_nothing(operator: Operator) -> None:
    found = operator.succeeds("update", "push", IMAGE, "--all", "--dry-run", "--json")
    assert found.json() == [{"told": 0, "skipped": {}}]
    assert operator.succeeds("update", "rollouts", "--json").out == ""


def test_that_nobody_carries_it_out_is_said_while_it_is_so(operator: Operator) -> None:
    said = "No service runs on this home"
    assert said in operator.succeeds("update", "push", IMAGE, "--all").err
    with held(operator.home / "run" / "service.lock"):
        assert said not in operator.succeeds("update", "push", IMAGE, "--all").err


def test_an_image_whose_support_is_over_is_called_out(operator: Operator) -> None:
    assert "support" not in operator.succeeds("update", "push", IMAGE, "--all", "--dry-run").err
    image, keys = operator.file("old.bin", "old"), operator.folder / "keys"
    said = ("--model", "meter", "--version", "0.9.0", "--security-counter", "1")
    operator.succeeds("update", "add", image, *said, "--support-until", "2020-12-31")
    operator.succeeds("update", "sign", "--yes", "--key", keys / "targets-1.key")
    operator.succeeds("update", "publish")
    for more in ((), ("--dry-run",)):
        told = operator.succeeds("update", "push", "meter/0.9.0/old.bin", "--all", *more).err
        assert "The support of meter/0.9.0/old.bin ended at 2020-12-31" in told


def test_a_retry_can_be_tried_before(operator: Operator) -> None:
    operator.succeeds("update", "push", IMAGE, "--all")
    asked = operator.succeeds("update", "retry", "meter-1-0-0", "--dry-run")
    assert asked.out == "0 devices would be in the queue again.\n"
    assert "Nothing was changed" in asked.err
    unknown = operator("update", "retry", "none", "--dry-run")
    assert "[rollout_unknown]" in unknown.err


def test_what_makes_no_sense_is_refused(operator: Operator) -> None:
    for wrong in (
        [],
        ["--all", "--group", "lamps"],
        ["--all", "--wave", "3", "--percent", "1,100"],
        ["--all", "--percent", "10,5"],
        ["--all", "--window", "25:00-26:00"],
        ["--all", "--deadline", "soon"],
        ["--all", "--deadline", "2020-01-01T00:00"],
        ["--all", "--deadline", "3000000d"],
        ["--all", "--deadline", "1d", "--not-before", "2d"],
        ["--all", "--abort-above", "120%"],
        ["--all", "--per-minute", "1000001"],
        ["--all", "--wave", "1000001"],
    ):
        assert operator("update", "push", IMAGE, *wrong).status == 2, wrong


def test_what_isn_t_there_is_named(operator: Operator) -> None:
    unknown = operator("update", "push", "meter/9/x.bin", "--all").err
    assert "[image_unknown]" in unknown
    assert "'meter/9/x.bin' isn't published" in unknown
    assert "[group_unknown]" in operator("update", "push", IMAGE, "--group", "none").err
    assert "[device_unknown]" in operator("update", "push", IMAGE, "--device", "none").err
    assert "[rollout_unknown]" in operator("update", "rollout", "none").err
    assert "[rollout_unknown]" in operator("update", "status", "--watch").err


async def test_a_push_is_watched_to_its_end_and_shown_everywhere(
    stack: Stack, tmp_path: Path
) -> None:
    workshop = await asyncio.to_thread(workshop_of, stack, tmp_path)
    path = await asyncio.to_thread(workshop.publish_image)
    await stack.installation.standard([])
    one, two = await joined(stack, tmp_path, "A1", "A2")
    arguments = ("update", "push", path, "--all", "--name", "r1", "--abort-above", "60%")
    async with update_device(stack, one) as first, update_device(stack, two) as second:
        watching = asyncio.create_task(run_muster(stack, *arguments, "--watch", "--json"))
        told = await first.told()
        assert told is not None
        past = datetime.now(UTC) - timedelta(days=1)
        await first.say(told, Phase.INSTALLED, running={path: "1.0.0"}, support_until=past)
        told = await second.told()
        assert told is not None
        await second.say(told, Phase.ROLLED_BACK, code="health_check_failed", detail="no light")
        status, out, err = await watching
    assert status == 0, err
    last = json.loads(out.splitlines()[-1])
    assert (last["state"], last["progress"]["installed"]) == ("done", 1)
    assert "1 x health_check_failed" in err
    await shown_everywhere(stack, one.name, two.name)


async def shown_everywhere(stack: Stack, installed: str, failed: str) -> None:
    async def lines(*arguments: str) -> list[dict[str, Any]]:
        status, out, err = await run_muster(stack, *arguments, "--json")
        assert status == 0, err
        return [json.loads(line) for line in out.splitlines()]

    (part,) = await lines("update", "rollout", "r1", "--at", "rolled_back")
    assert (part["device_id"], part["detail"]) == (failed, "no light")
    (shown,) = await lines("devices", "show", installed)
    assert shown["software"]["supported"] is False
    assert [each["phase"] for each in shown["updates"]] == ["installed"]
    (listed,) = await lines("devices", "list", "--unsupported")
    assert listed["id"] == installed
    _, out, _ = await run_muster(stack, "devices", "list")
    assert "ENDED" in out
    (status,) = await lines("update", "status")
    assert status["unsupported_devices"] == 1
    _, out, _ = await run_muster(stack, "doctor")
    assert "1 devices run something whose support has ended" in out
