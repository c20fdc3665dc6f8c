"""`muster events export` and `verify`, and what the running service does for them."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.adapters.audit_files import AuditFolder
from broker.operating.installation import open_installation
from broker.settings import BrokerKind
from tests.support.acting import run_muster
from tests.support.commands import Operator
from tests.support.stack import Plan, Stack, prepared_stack
from tests.support.waiting import eventually


@pytest.fixture
def operator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Operator:
    installed = Operator(tmp_path / "home", tmp_path, capsys)
    installed.succeeds("init", installed.home, "--claim-port", "0", "--fleet-port", "0")
    return installed


def test_everything_is_exported_in_its_order_and_from_anywhere_on(operator: Operator) -> None:
    for number in range(3):
        text = '[groups.lamps]\nclaim_certificates = []\ndevice_name = "{serial}"\nquota = '
        text += str(number)
        operator.succeeds("group", "apply", operator.file("groups.toml", text))
    events = operator.succeeds("events", "export").json()
    assert [each["id"] for each in events] == [1, 2, 3]
    assert events[0]["kind"] == "group.applied"
    assert operator.succeeds("events", "export", "--after", "2").json() == events[2:]


def test_a_log_that_was_never_sealed_can_t_be_verified(operator: Operator) -> None:
    outcome = operator("events", "verify", "--json")
    assert outcome.status == 1
    assert "audit.pub" in outcome.json()[0]["message"]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with prepared_stack(tmp_path, Plan(BrokerKind.EMBEDDED)) as prepared:
        await prepared.installation.standard([])
        yield prepared


async def is_sealed(stack: Stack) -> bool:
    """Whether all that has happened is covered by a seal."""
    _, out, _ = await run_muster(stack, "events", "verify", "--json")
    return bool(json.loads(out.splitlines()[-1])["message"].endswith("last seal: 0."))


async def test_the_running_service_seals_what_happens(stack: Stack) -> None:
    folder = AuditFolder(stack.home.path)
    assert not await asyncio.to_thread(folder.is_used)
    await stack.start_service()
    await eventually(lambda: is_sealed(stack), within=60)
    status, out, _ = await run_muster(stack, "events", "verify")
    assert (status, out.split(":")[0]) == (0, "ok")
    status, out, _ = await run_muster(stack, "doctor", "--json", "--all")
    (found,) = [line for line in map(json.loads, out.splitlines()) if line["check"] == "audit_log"]
    assert found["level"] == "ok"
    assert open_installation(stack.home.path, None).settings.audit.keep.days == 400
    shutil.rmtree(folder.path)
    status, out, _ = await run_muster(stack, "doctor", "--json")
    (gone,) = [line for line in map(json.loads, out.splitlines()) if line["check"] == "audit_log"]
    assert (status, gone["level"]) == (1, "error")
    assert "backup" in gone["remedy"]
