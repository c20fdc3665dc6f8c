"""Full disks, servers that go away, crashes: an honest error, then back to work by itself."""

import asyncio
import sqlite3
import threading
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.batch import OpenConnection, open_transaction
from broker.adapters.registry.engine import SQLITE_SETTINGS, reading_engine
from broker.adapters.registry.errors import translated
from broker.adapters.registry.migrate import migrate
from broker.adapters.registry.session import Compiler
from broker.core.records import Event, EventKind
from broker.ports.registry import (
    DeviceFilter,
    EventFilter,
    ReadTransaction,
    RegistryError,
    WriteTransaction,
)
from tests.support.postgres import PostgresCluster
from tests.support.records import NOW
from tests.support.registries import add_batch, add_member, held_writer
from tests.support.templates import with_schema
from tests.support.waiting import eventually

_ALL = EventFilter(limit=1000)


def large_event(number: int, tx: WriteTransaction) -> None:
    tx.add_event(Event(NOW, EventKind.SERVICE_STARTED, device_id=str(number), detail="x" * 50_000))


async def fill(registry: SqlRegistry) -> None:
    for number in range(100):
        await registry.write(partial(large_event, number))


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A registry that may hold no more than about 800 KiB."""
    url = with_schema(tmp_path / "registry.db")
    monkeypatch.setitem(SQLITE_SETTINGS, "max_page_count", "200")
    return url


async def test_a_full_disk_is_named_and_survived(
    small_disk: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SqlRegistry(small_disk) as registry:
        with pytest.raises(RegistryError, match="no room left") as refused:
            await fill(registry)
        kept = await registry.read(lambda tx: len(tx.events(_ALL)))
        assert refused.value.code == "registry_full"
        assert "Make room" in refused.value.remedy
        assert kept > 0
        with pytest.raises(RegistryError, match="no room left"):
            await registry.write(partial(large_event, 100))

        monkeypatch.setitem(SQLITE_SETTINGS, "max_page_count", "1000")
        await registry.write(partial(large_event, 101))
        assert await registry.read(lambda tx: len(tx.events(_ALL))) == kept + 1


async def test_what_finds_no_room_leaves_room_for_its_neighbours(small_disk: str) -> None:
    def huge(tx: WriteTransaction) -> None:
        for number in range(100):
            large_event(number, tx)

    async with SqlRegistry(small_disk) as registry:
        async with held_writer(registry):
            tasks = [
                asyncio.create_task(registry.write(work))
                for work in (partial(large_event, 1), huge, partial(large_event, 2))
            ]
            await asyncio.sleep(0)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        codes = [error and getattr(error, "code", error) for error in errors]
        assert codes == [None, "registry_full", None]
        assert await registry.read(lambda tx: len(tx.events(_ALL))) == 2


async def test_a_database_held_by_someone_else_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "registry.db"
    migrate(f"sqlite:///{path}")
    monkeypatch.setitem(SQLITE_SETTINGS, "busy_timeout", "50")
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RegistryError) as refused:
            await registry.write(lambda tx: tx.raise_counter("n"))
        assert refused.value.code == "registry_busy"
        other.execute("ROLLBACK")
        other.close()
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 1


async def test_a_server_that_restarts_is_found_again(cluster: PostgresCluster) -> None:
    url = cluster.new_registry()
    async with SqlRegistry(url) as registry:
        await registry.write(add_batch)
        await asyncio.to_thread(cluster.restart)
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 1
        await asyncio.to_thread(cluster.restart)
        assert await registry.read(lambda tx: tx.counter("n")) == 1


async def test_no_reader_keeps_a_connection_of_before_the_restart(
    cluster: PostgresCluster,
) -> None:
    url = cluster.new_registry()
    together = threading.Barrier(4)

    def wait_for_the_others(tx: ReadTransaction) -> int:
        together.wait(60)
        return tx.counter("n")

    async with SqlRegistry(url) as registry:
        assert await asyncio.gather(*(registry.read(wait_for_the_others) for _ in range(4)))
        await asyncio.to_thread(cluster.restart)
        for _ in range(8):
            assert await registry.read(lambda tx: tx.counter("n")) == 0


def test_a_connection_that_is_let_go_is_closed(tmp_path: Path) -> None:
    engine = reading_engine(with_schema(tmp_path / "registry.db"), 2)
    own = OpenConnection(engine)
    with open_transaction(own, Compiler(engine.dialect)) as (_, session):
        connection: Any = session.connection.connection.dbapi_connection
    engine.dispose()
    own.close()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")


async def test_a_server_that_is_away_is_named(cluster: PostgresCluster) -> None:
    url = cluster.new_registry()
    async with SqlRegistry(url) as registry:
        await registry.write(lambda tx: tx.raise_counter("n"))
        await asyncio.to_thread(cluster.stop)
        try:
            for attempt in (
                registry.write(lambda tx: tx.raise_counter("n")),
                registry.read(lambda tx: tx.counter("n")),
            ):
                with pytest.raises(RegistryError) as refused:
                    await attempt
                assert refused.value.code == "registry_unavailable"
                assert "Check that the server runs" in refused.value.remedy
        finally:
            await asyncio.to_thread(cluster.start)
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 2


async def test_members_written_while_the_server_restarts_are_there_once(
    cluster: PostgresCluster,
) -> None:
    url = cluster.new_registry()
    async with SqlRegistry(url) as registry:
        await registry.write(add_batch)
        restarting = asyncio.create_task(asyncio.to_thread(cluster.restart))
        written = 0
        while not restarting.done() or written < 50:
            number = written
            await eventually(partial(_has_written, registry, number))
            written += 1
        await restarting
        devices = await registry.read(lambda tx: tx.devices(DeviceFilter(limit=100_000)))
        assert len(devices) == written
        (group,) = await registry.read(lambda tx: tx.groups())
        assert group.devices == written
        assert len(await registry.read(lambda tx: tx.pending_replies(100_000))) == written


async def _has_written(registry: SqlRegistry, number: int) -> bool:
    try:
        await registry.write(lambda tx: add_member(tx, number))
    except RegistryError as error:
        if error.code != "registry_unavailable":
            raise
        return False
    return True


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (psycopg.errors.DiskFull("no space"), "registry_full"),
        (psycopg.errors.LockNotAvailable("waited"), "registry_busy"),
        (psycopg.errors.UniqueViolation("twice"), "registry_conflict"),
        (psycopg.errors.AdminShutdown("bye"), "registry_unavailable"),
        (psycopg.OperationalError("refused"), "registry_unavailable"),
        (psycopg.errors.InvalidPassword("no"), "registry_unavailable"),
        (psycopg.errors.UndefinedTable("what"), "registry_failed"),
        (sqlite3.OperationalError("what"), "registry_failed"),
    ],
)
def test_each_error_has_its_code_and_a_remedy(error: Exception, code: str) -> None:
    told = translated(error)
    assert told.code == code
    assert told.remedy
