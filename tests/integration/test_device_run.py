"""The device in the fleet: it stays, comes back, and ends when told."""

import asyncio
import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.protocol.codes import Code, Refused
from broker.protocol.messages import RotationOrder
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from device_client import status
from device_client.agent import Agent
from device_client.keystore import Keystore
from device_client.status import Membership
from device_client.status_note import Activity
from tests.support.device_agents import QUICK, device
from tests.support.fake_service import FakeFleet, fake_fleet
from tests.support.waiting import eventually


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


# After a restart of its broker, the service misses what is asked before it's back.
REPEATING = dataclasses.replace(QUICK, answers_s=(1.0,) * 30)


@asynccontextmanager
async def running(state: Path, fleet: FakeFleet) -> AsyncIterator[tuple[Agent, Keystore]]:
    """An agent that runs until the end of the block."""
    with device(state, fleet.bundle(), timing=REPEATING) as (agent, store):
        task = asyncio.create_task(agent.run())
        try:
            yield agent, store
        finally:
            task.cancel()
            await asyncio.wait([task])
        assert task.cancelled()


def online(state: Path) -> bool:
    return status.report(state).activity is Activity.ONLINE


async def test_it_claims_and_stays(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state, fleet):
        await eventually(lambda: online(state))
        report = status.report(state)
    assert report.membership is Membership.CONFIRMED
    assert report.device_id == "device-A1"
    assert report.last_error is None
    assert status.report(state).activity is Activity.IDLE


async def test_it_comes_back_and_confirms_again(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state, fleet):
        await eventually(lambda: online(state))
        enrolled, confirmed = len(fleet.service.enrolls), len(fleet.service.confirms)
        await fleet.fleet.restart()
        await eventually(lambda: len(fleet.service.confirms) > confirmed)
        await eventually(lambda: online(state))
    assert len(fleet.service.enrolls) == enrolled


async def test_the_claim_broker_may_come_up_later(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    await fleet.claim.stop()
    async with running(state, fleet):
        await eventually(lambda: status.report(state).last_error is not None)
        error = status.report(state).last_error
        assert error is not None
        assert error.code == "unreachable"
        await fleet.claim.restart()
        await eventually(lambda: online(state))


async def test_what_is_final_for_claim_is_asked_again_by_run(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    fleet.service.enroll_script.extend([Refused(Code.CLAIM_EXHAUSTED)] * 2)
    async with running(state, fleet):
        await eventually(lambda: online(state))
    assert len(fleet.service.enrolls) >= 3
    assert len(fleet.service.keys_seen()) == 1


async def test_a_revoked_device_asks_the_claim_zone_again(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state, fleet) as (_, store):
        await eventually(lambda: online(state))
        revoked = store.current()
        assert revoked is not None
        enrolled = len(fleet.service.enrolls)
        fleet.service.forget_certificates()
        fleet.service.recover_script.extend([Refused(Code.RECOVERY_REFUSED)] * 9)
        await fleet.revoke(revoked.chain_file.read_text(), revoked.device_id)
        await fleet.fleet.control.disconnect(revoked.device_id)
        await eventually(lambda: len(fleet.service.enrolls) > enrolled)
        await eventually(lambda: online(state))
        again = store.current()
    assert again is not None
    assert again.certificate_sha256 != revoked.certificate_sha256
    assert again.key_sha256 == revoked.key_sha256


async def test_a_full_disk_is_waited_out_with_the_same_key(
    fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, full = os.fsync, iter([False, True, True, True])

    def fsync(descriptor: int) -> None:
        if len(fleet.service.enrolls) > 0 and next(full, False):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    state = tmp_path / "state"
    async with running(state, fleet) as (_, store):
        await eventually(lambda: online(state))
        identity = store.current()
    assert len(fleet.service.enrolls) > 1
    assert len(fleet.service.keys_seen()) == 1
    assert identity is not None


async def test_the_event_loop_doesn_t_wait_for_the_status_to_be_written(
    fleet: FakeFleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, threads = os.replace, list[int]()

    def replace(source: str | Path, target: str | Path) -> None:
        if Path(target).name == "status.json":
            threads.append(threading.get_ident())
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    state = tmp_path / "state"
    fleet.service.enroll_script.append(Refused(Code.BUSY))
    fleet.service.renew_script.append(Refused(Code.BUSY))
    topic = desired_topic(DeviceId("device-A1"), Desired.ROTATION)
    async with running(state, fleet):
        await eventually(lambda: online(state))
        now = datetime.now(UTC)
        await fleet.service.retain(topic, RotationOrder(version=1, renew_by=now, ordered_at=now))
        await eventually(lambda: len(fleet.service.renews) >= 2)
    assert len(threads) >= 6, "claiming, refused, connecting, online, planned, refused"
    assert threading.get_ident() not in threads


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "device_client", *map(str, arguments)]


async def finished(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, command(*arguments), capture_output=True, text=True, timeout=60
    )


async def test_the_command_claims_and_tells(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    bundle = fleet.bundle_file()
    claimed = await finished("claim", "--bundle", bundle, "--state", state, "--serial", "A1")
    assert claimed.returncode == 0, claimed.stderr
    assert "device-A1" in claimed.stdout
    told = await finished("status", "--json", "--state", state)
    report = json.loads(told.stdout)
    assert report["membership"] == "confirmed"
    assert report["fleet"]["port"] == fleet.fleet.port
    assert "PRIVATE" not in claimed.stdout + claimed.stderr + told.stdout
    for_people = await finished("status", "--state", state)
    assert "device-A1" in for_people.stdout


async def test_the_command_explains_a_refusal(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.enroll_script.append(Refused(Code.CLAIM_EXHAUSTED))
    refused = await finished(
        "claim", "--bundle", fleet.bundle_file(), "--state", tmp_path / "state", "--serial", "A1"
    )
    assert refused.returncode == 3
    assert "claim_exhausted" in refused.stderr
    assert "muster claim-cert create" in refused.stderr
    assert refused.stdout == ""


async def test_the_command_runs_without_arguments_after_a_kill(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    first = await asyncio.create_subprocess_exec(
        *command("run", "--bundle", fleet.bundle_file(), "--state", state, "--serial", "A1")
    )
    await eventually(lambda: online(state))
    first.kill()
    await first.wait()
    (tmp_path / "bundle.json").unlink()
    second = await asyncio.create_subprocess_exec(*command("run", "--state", state))
    await eventually(lambda: len(fleet.service.confirms) >= 2)
    await eventually(lambda: online(state))
    second.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(second.wait(), 60) == 0
    assert "disconnected" in fleet.fleet.log()


async def test_two_agents_do_not_share_a_state(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state, fleet):
        await eventually(lambda: online(state))
        second = await finished("run", "--state", state)
    assert second.returncode == 5
    assert "state_locked" in second.stderr
    assert f"{os.getpid()}" not in second.stdout
