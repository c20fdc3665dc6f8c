"""Running installations over both kinds of broker; `on_both_databases` adds PostgreSQL."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.settings import BrokerKind
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.stack import Plan, Stack, running_stack


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """One server for all tests of this process; each takes a database of its own."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(params=BrokerKind, ids=str)
def brokers(request: pytest.FixtureRequest) -> BrokerKind:
    """Which brokers."""
    kind: BrokerKind = request.param
    return kind


@pytest.fixture
def plan(brokers: BrokerKind) -> Plan:
    """What `stack` runs; a module may say otherwise."""
    return Plan(brokers)


@pytest.fixture(params=["embedded-sqlite", "mosquitto-postgresql"])
def on_both_databases(request: pytest.FixtureRequest) -> Plan:
    """A plan for tests of the main job. Mosquitto beside SQLite is what `plan` runs."""
    kind, _, database = str(request.param).partition("-")
    if database == "sqlite":
        return Plan(BrokerKind(kind))
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return Plan(BrokerKind(kind), cluster.new_registry())


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    """A running installation that knows nobody."""
    async with running_stack(tmp_path, plan) as running:
        yield running
