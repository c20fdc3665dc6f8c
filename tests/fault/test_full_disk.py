"""SQLite on a disk without room: a clear error, nothing half-written, and on it goes afterwards."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from broker.entry.mqtt import router
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, EnrollRequest, Rejected
from broker.settings import BrokerKind
from tests.support.claimant import claimant, enroll_request
from tests.support.fleets import Fleet, assert_consistent
from tests.support.small_disk import SmallDisk, small_disk
from tests.support.stack import Plan, Stack, running_stack

MANY = 300
"""Claims that don't fit into what is left."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder, "registry.db-wal") as small:
        yield small


@pytest.fixture(params=BrokerKind, ids=str)
async def stack(
    request: pytest.FixtureRequest, disk: SmallDisk, tmp_path: Path
) -> AsyncIterator[Stack]:
    """An installation on that disk."""
    plan = Plan(request.param, limits={"client_claims_burst": 1000, "claims_burst": 1000})
    async with running_stack(tmp_path / "disk", plan) as running:
        await running.installation.standard([f"S{number}" for number in range(MANY)])
        yield running


async def fill_until_refused(stack: Stack, disk: SmallDisk) -> tuple[EnrollRequest, Rejected]:
    """The first claim for which there was no room."""
    async with claimant(stack, "filling") as asking:
        await asyncio.to_thread(disk.fill)
        for number in itertools.count():
            request = enroll_request(f"S{number}")
            answer = await asking.enroll(request)
            if isinstance(answer, Rejected):
                return request, answer
    raise AssertionError("unreachable")


async def test_it_says_so_and_recovers(stack: Stack, disk: SmallDisk) -> None:
    with structlog.testing.capture_logs() as lines:
        request, answer = await fill_until_refused(stack, disk)
    assert answer.code == Code.INTERNAL
    assert answer.retry_after_s is not None
    (fault, *_) = [line for line in lines if line["event"] == "registry_failed"]
    assert fault["code"] == "registry_full"
    assert "Make room" in fault["remedy"]
    await asyncio.to_thread(disk.make_room)
    async with claimant(stack, "afterwards") as asking:
        assert isinstance(await asking.enroll(request), EnrollAccepted)
    assert len(await stack.certificates_of(request.serial)) == 1
    await assert_consistent(stack)


async def test_devices_wait_for_room(
    stack: Stack, disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router, "_RETRY_AFTER_FAILURE_S", 1)
    await fill_until_refused(stack, disk)
    fleet = Fleet(stack, tmp_path, [f"S{MANY - number}" for number in range(1, 5)])
    async with asyncio.TaskGroup() as tasks:
        claims = tasks.create_task(fleet.claim())
        async with claimant(stack, "witness") as asking:
            assert isinstance(await asking.enroll(enroll_request("S0")), Rejected)
        await asyncio.to_thread(disk.make_room)
        await claims
    await fleet.assert_whole()
