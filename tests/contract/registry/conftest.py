"""Each test runs on both databases, with a registry of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.templates import with_schema

KINDS = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def cluster() -> Iterator[PostgresCluster]:
    """This process's PostgreSQL server."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgresql_url(cluster: PostgresCluster) -> str:
    """A registry that the tests of this process use one after the other."""
    return cluster.new_registry()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which database."""
    name: str = request.param
    return name


@pytest.fixture
def url(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """A database with the schema and nothing else."""
    if kind == "sqlite":
        return with_schema(tmp_path / "registry.db")
    # Asked for by name, so that tests on SQLite alone start no server.
    cluster: PostgresCluster = request.getfixturevalue("cluster")
    return cluster.without_rows(request.getfixturevalue("postgresql_url"))


@pytest.fixture
async def registry(url: str) -> AsyncIterator[SqlRegistry]:
    """An open, empty registry."""
    async with SqlRegistry(url) as registry:
        yield registry
