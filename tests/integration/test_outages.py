"""Parts of an installation that are away for a while: nothing is lost, and nobody has to help."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.composition.zone_brokers import Links  # the one place where both zones' answers pass
from broker.core.records import EventKind
from broker.entry.mqtt import router
from broker.ports.brokers import PublishError
from broker.ports.registry import RegistryError
from broker.protocol import codec
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.claimant import Claimant, claimant, enroll_request
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.stack import STUBBORN, Plan, Stack, running_stack
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def mortal_postgres() -> Iterator[PostgresCluster]:
    """A server that tests may stop, apart from the one that others use."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture
async def on_postgresql(mortal_postgres: PostgresCluster, tmp_path: Path) -> AsyncIterator[Stack]:
    """A service whose database can be taken away."""
    plan = Plan(BrokerKind.MOSQUITTO, mortal_postgres.new_database())
    async with running_stack(tmp_path, plan) as running:
        yield running


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices are told to come back at once."""
    monkeypatch.setattr(router, "_RETRY_AFTER_FAILURE_S", 1)
    monkeypatch.setattr(router, "_RETRY_WHEN_BUSY_S", 1)


async def test_a_database_that_is_away(
    on_postgresql: Stack, mortal_postgres: PostgresCluster
) -> None:
    """A device is told to wait, learns nothing more, and succeeds later."""
    stack = on_postgresql
    await stack.installation.standard(["A1"])
    request = enroll_request("A1")
    async with claimant(stack, "A1") as asking:
        await asyncio.to_thread(mortal_postgres.stop)
        answer = await asking.enroll(request)
        assert isinstance(answer, Rejected)
        assert answer.code in (Code.INTERNAL, Code.BUSY)
        assert answer.retry_after_s is not None
        assert "postgres" not in (answer.message + answer.remedy).lower()
        await asyncio.to_thread(mortal_postgres.start)
        assert isinstance(await asking.enroll(request), EnrollAccepted)
    assert len(await stack.certificates()) == 1


@pytest.mark.usefixtures("impatient")
async def test_devices_claim_by_themselves_when_the_database_is_back(
    on_postgresql: Stack, mortal_postgres: PostgresCluster, tmp_path: Path
) -> None:
    stack, serials = on_postgresql, [f"S{number}" for number in range(5)]
    await stack.installation.standard(serials)
    await asyncio.to_thread(mortal_postgres.stop)
    async with asyncio.TaskGroup() as tasks:
        for serial in serials:
            tasks.create_task(stack.claim_device(serial, tmp_path / serial, STUBBORN))
        # Not before the service has met the failure.
        async with claimant(stack, "witness") as asking:
            assert isinstance(await asking.enroll(enroll_request("S0")), Rejected)
        await asyncio.to_thread(mortal_postgres.start)
    for serial in serials:
        assert await stack.is_active(serial)
    assert len(await stack.certificates()) == len(serials)


async def test_a_broker_that_comes_back_while_the_database_is_away(
    on_postgresql: Stack, mortal_postgres: PostgresCluster
) -> None:
    """Two failures at once: the service must outlive both."""
    stack = on_postgresql
    await stack.installation.standard(["A1"])
    await asyncio.to_thread(mortal_postgres.stop)
    await stack.brokers[Zone.CLAIM].restart()
    request = enroll_request("A1")
    async with claimant(stack, "A1") as asking:
        await eventually(lambda: is_answered(asking, codec.encode(request)))
    await asyncio.to_thread(mortal_postgres.start)
    async with claimant(stack, "A1-again") as asking:
        assert isinstance(await asking.enroll(request), EnrollAccepted)


async def test_a_service_is_stopped_while_the_database_is_away(
    on_postgresql: Stack, mortal_postgres: PostgresCluster
) -> None:
    """It ends in order; what it couldn't note is noted by its next life."""
    stack = on_postgresql
    await stack.installation.standard(["A1"])
    async with claimant(stack, "A1") as asking:
        assert isinstance(await asking.enroll(enroll_request("A1")), EnrollAccepted)
        await asyncio.to_thread(mortal_postgres.stop)
        await stack.stop_service()
        await asyncio.to_thread(mortal_postgres.start)
        await stack.start_service()
    await eventually(lambda: is_clear(stack))


async def test_a_service_that_is_started_while_the_database_is_away(
    on_postgresql: Stack, mortal_postgres: PostgresCluster
) -> None:
    """It says so at once, and what to do."""
    stack = on_postgresql
    await stack.stop_service()
    await asyncio.to_thread(mortal_postgres.stop)
    with pytest.raises(RegistryError) as refused:
        await stack.start_service()
    assert refused.value.code == "registry_unavailable"
    assert "server runs" in refused.value.remedy
    await asyncio.to_thread(mortal_postgres.start)
    await stack.start_service()


async def test_another_program_that_holds_the_database_for_a_moment(
    stack: Stack, tmp_path: Path
) -> None:
    """SQLite has one writer; a claim waits for an operator's import, and isn't refused."""
    await stack.installation.standard(["A1"])
    with closing(sqlite3.connect(stack.home.path / "registry.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        async with claimant(stack, "A1") as asking:
            await asking.send(codec.encode(enroll_request("A1")))
            with pytest.raises(TimeoutError):
                await asking.answer(within=0.5)
            other.execute("ROLLBACK")
            assert isinstance(await asking.answer(), EnrollAccepted)
    assert await stack.events_of(EventKind.CLAIM_REFUSED) == []


async def test_an_answer_that_was_not_published_is_published_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.installation.standard(["A1"])

        async def fail(links: Links, zone: Zone, topic: str, payload: bytes) -> None:
            raise PublishError("the test took the broker away")

        request = enroll_request("A1")
        async with claimant(stack, "A1") as asking:
            with monkeypatch.context() as patched:
                patched.setattr(Links, "publish", fail)
                await asking.send(codec.encode(request))
                await eventually(lambda: waits_in_outbox(stack))
                await stack.stop_service()
            assert len(await stack.installation.replies()) == 1
            await stack.start_service()
            answer = await asking.answer()
        assert isinstance(answer, EnrollAccepted)
        assert answer.request_id == request.request_id
        await eventually(lambda: is_clear(stack))


async def test_the_outbox_is_empty_when_all_is_said(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1", "B2"])
    for serial in ("A1", "B2"):
        await stack.claim_device(serial, tmp_path / serial)
    await eventually(lambda: is_clear(stack))


async def test_a_broker_that_restarts(tmp_path: Path) -> None:
    """The service finds it again, and members stay members."""
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.installation.standard(["A1", "B2"])
        await stack.claim_device("A1", tmp_path / "A1")
        for zone in Zone:
            await stack.brokers[zone].restart()
        await stack.claim_device("A1", tmp_path / "A1", STUBBORN)
        await stack.claim_device("B2", tmp_path / "B2", STUBBORN)
        assert len(await stack.certificates()) == 2


async def test_a_service_that_restarts(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1", "B2"])
    before = await stack.claim_device("A1", tmp_path / "A1")
    await stack.stop_service()
    await stack.start_service()
    assert await stack.claim_device("A1", tmp_path / "A1") == before
    await stack.claim_device("B2", tmp_path / "B2")
    assert len(await stack.events_of(EventKind.SERVICE_STARTED)) == 2


async def waits_in_outbox(stack: Stack) -> bool:
    return await stack.installation.replies() != []


async def is_clear(stack: Stack) -> bool:
    return await stack.installation.replies() == []


async def is_answered(asking: Claimant, payload: bytes) -> bool:
    """Asks once more, as a device does until it is answered."""
    await asking.send(payload)
    try:
        return isinstance(await asking.answer(within=1), Rejected)
    except TimeoutError:
        return False
