"""Making and migrating a registry's database, and refusing one that isn't this release's."""

import asyncio
import re
import stat
import threading
import traceback
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.engine import writing_engine
from broker.adapters.registry.migrate import check, migrate
from broker.adapters.registry.schema import METADATA
from broker.ports.registry import RegistryError
from tests.support.postgres import PostgresCluster
from tests.support.records import a_claim_certificate


@pytest.fixture(scope="session")
def postgresql_schema(cluster: PostgresCluster) -> str:
    """A database that the tests of this file use one after the other."""
    return cluster.new_database()


@pytest.fixture
def empty_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database without a schema; SQLite's file isn't there yet."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    return cluster.emptied(request.getfixturevalue("postgresql_schema"))


@pytest.fixture
def url(empty_url: str) -> str:
    """A database with the schema, from the migrations themselves."""
    migrate(empty_url)
    return empty_url


def set_revision(url: str, revision: str) -> str:
    """Claims that the schema has this revision; returns the one it had."""
    engine = writing_engine(url)
    with engine.begin() as connection:
        before: str = connection.execute(
            sa.text("SELECT version_num FROM alembic_version")
        ).scalar_one()
        statement = sa.text("UPDATE alembic_version SET version_num = :revision")
        connection.execute(statement, {"revision": revision})
    engine.dispose()
    return before


async def test_an_empty_database_is_made_ready(empty_url: str) -> None:
    migrate(empty_url)
    check(empty_url)
    async with SqlRegistry(empty_url) as registry:
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 1


async def test_migrating_again_changes_nothing(url: str) -> None:
    async with SqlRegistry(url) as registry:
        await registry.write(lambda tx: tx.save_claim_certificate(a_claim_certificate()))
    migrate(url)
    async with SqlRegistry(url) as registry:
        listed = await registry.read(lambda tx: tx.claim_certificates())
    assert listed == [a_claim_certificate()]


def test_the_migrations_lead_to_the_schema(url: str) -> None:
    engine = writing_engine(url)
    with engine.begin() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), METADATA)
    engine.dispose()
    assert differences == []


def test_two_who_migrate_at_once_don_t_collide(empty_url: str) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_url)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert errors == []
    check(empty_url)


async def test_a_newer_schema_is_refused_and_left_alone(url: str) -> None:
    ours = set_revision(url, "9999")
    for attempt in (migrate, check):
        with pytest.raises(RegistryError, match="newer than this release") as refused:
            attempt(url)
        assert refused.value.code == "schema_newer"
        assert "backup" in refused.value.remedy
    registry = SqlRegistry(url)
    with pytest.raises(RegistryError) as refused:
        await registry.start()
    assert refused.value.code == "schema_newer"
    await registry.stop()
    set_revision(url, ours)
    check(url)


async def test_an_older_schema_is_refused_until_it_is_migrated(url: str) -> None:
    set_revision(url, "0001")
    with pytest.raises(RegistryError, match="older than this release") as refused:
        await SqlRegistry(url).start()
    assert refused.value.code == "schema_older"
    assert "migrate" in refused.value.remedy


def test_a_database_without_a_schema_is_refused(empty_url: str, kind: str) -> None:
    if kind == "sqlite":
        Path(empty_url.removeprefix("sqlite:///")).touch(mode=0o600)
    with pytest.raises(RegistryError, match="is empty") as refused:
        asyncio.run(SqlRegistry(empty_url).start())
    assert refused.value.code == "schema_older"
    assert "muster migrate" in refused.value.remedy


async def test_a_file_that_is_not_there_is_not_made_by_starting(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    with pytest.raises(RegistryError, match="no registry at") as refused:
        await SqlRegistry(f"sqlite:///{path}").start()
    assert refused.value.code == "registry_unavailable"
    assert not path.exists()


def modes_in(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


async def test_only_its_owner_can_read_the_file(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    async with SqlRegistry(url) as registry:
        await registry.write(lambda tx: tx.raise_counter("n"))
        modes = await asyncio.to_thread(modes_in, tmp_path)
    assert modes == dict.fromkeys(["registry.db", "registry.db-wal", "registry.db-shm"], 0o600)


def test_a_file_in_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match="can't be made") as refused:
        migrate(f"sqlite:///{tmp_path / 'nowhere' / 'registry.db'}")
    assert refused.value.code == "registry_unavailable"


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "registry.db"
    path.write_bytes(b"certainly no database " * 100)
    with pytest.raises(RegistryError) as refused:
        migrate(f"sqlite:///{path}")
    assert refused.value.code == "registry_unavailable"
    assert path.read_bytes() == b"certainly no database " * 100


@pytest.mark.parametrize(
    "url",
    [
        "",
        "sqlite://",
        "sqlite:///:memory:",
        "mysql://u:hunter2@h/d",
        "postgresql://u:hunter2@h:port/d",
        "postgresql://u:hunter2@h",
        "hunter2",
    ],
)
def test_a_url_that_names_no_usable_database(url: str) -> None:
    with pytest.raises(RegistryError, match="names no database") as refused:
        migrate(url)
    assert refused.value.code == "registry_url_invalid"
    assert "hunter2" not in everything_said(refused.value)


async def test_a_wrong_password_is_never_repeated(cluster: PostgresCluster) -> None:
    url = cluster.url("postgres", password="hunter2-is-wrong")
    with pytest.raises(RegistryError) as refused:
        await asyncio.to_thread(migrate, url)
    assert refused.value.code == "registry_unavailable"
    assert "password" in refused.value.remedy
    said = everything_said(refused.value)
    assert re.search("password authentication failed", said)
    assert "hunter2" not in said


def everything_said(error: BaseException) -> str:
    """What a log could hold of it: texts of all its causes, and where they were raised."""
    return "".join(traceback.format_exception(error))
