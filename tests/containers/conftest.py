"""What `tests.integration` runs on here: containers, reached by their published ports.

One project for the whole run; every test finds its registry empty and its service just started.
"""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from broker.testing.compose import ComposeError, compose_project, find_engine
from tests.containers.site import FILES, Site
from tests.support.ports import free_port
from tests.support.stack import Plan, Stack


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The project, up; taken away whole at the end."""
    try:
        find_engine()
    except ComposeError as error:
        pytest.exit(str(error), returncode=1)
    ports = {zone: free_port() for zone in Zone}
    database_port = free_port()
    environment = {
        "MUSTER_CLAIM_PORT": str(ports[Zone.CLAIM]),
        "MUSTER_FLEET_PORT": str(ports[Zone.FLEET]),
        "MUSTER_TEST_DATABASE_PORT": str(database_port),
    }
    with compose_project(FILES, environment) as project:
        project.build()
        project.up()
        running = Site(project, ports, database_port, tmp_path_factory.mktemp("home"))
        running.fetch_home()
        yield running


@pytest.fixture
def on_both_databases() -> Plan:
    """There is one plan here."""
    return Plan(BrokerKind.MOSQUITTO)


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    """What `stack` runs; a module may say otherwise."""
    return on_both_databases


@pytest.fixture
async def stack(site: Site, plan: Plan, tmp_path: Path) -> Stack:
    """The running installation, which knows nobody."""
    return await asyncio.to_thread(site.begin, tmp_path, plan)
