"""Each test runs on both databases, with a registry of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.migrate import migrate
from tests.support.postgres import PostgresCluster, postgres_cluster

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    """This process's PostgreSQL server."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql_url(cluster: PostgresCluster) -> str:
    """A database that the tests of this process use one after the other."""
    return cluster.new_database()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database."""
    name: str = request.param
    return name


@pytest.fixture
def empty_url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database without a schema; SQLite's file isn't there yet."""
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'registry.db'}"
    # Asked for by name, so that tests on SQLite alone start no server.
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    return cluster.emptied(request.getfixturevalue("postgresql_url"))


@pytest.fixture
def url(empty_url: str) -> str:
    """A database with the schema."""
    migrate(empty_url)
    return empty_url


@pytest.fixture
async def registry(url: str) -> AsyncIterator[SqlRegistry]:
    """An open, empty registry."""
    async with SqlRegistry(url) as registry:
        yield registry
