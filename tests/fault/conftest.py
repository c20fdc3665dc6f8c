"""Installations that are made once for many kills; every test brings devices of its own."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final

import pytest
import pytest_asyncio

from broker.settings import BrokerKind
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.stack import Plan, Stack, prepared_stack


class Kept:
    """Installations that last until the end of a module; each is made when it's first asked for.

    A fixture of the module's scope can't do it where a test names its stack and its step in one
    `parametrize`: pytest then takes both for the function's, and builds anew for every test.
    """

    def __init__(self, ending: AsyncExitStack) -> None:
        self._ending = ending
        self._stacks: dict[str, Stack] = {}

    async def get(self, name: str, make: Callable[[], AbstractAsyncContextManager[Stack]]) -> Stack:
        """The one of this name."""
        if name not in self._stacks:
            self._stacks[name] = await self._ending.enter_async_context(make())
        return self._stacks[name]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def kept() -> AsyncIterator[Kept]:
    """A module's own."""
    async with AsyncExitStack() as ending:
        yield Kept(ending)


SITES: Final = ("embedded-sqlite", "mosquitto-postgresql")
"""Either broker and either database: what one does at a step has nothing to do with the other."""


def plan_of(site: str, request: pytest.FixtureRequest) -> Plan:
    """The service as a process, on one of the `SITES`."""
    kind, _, database = site.partition("-")
    url = "sqlite:///registry.db"
    if database == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        url = cluster.new_database()
    limits: dict[str, str | float] = {"client_claims_burst": 1000}
    return Plan(BrokerKind(kind), url, in_process=False, forks=True, limits=limits)


@pytest_asyncio.fixture(params=SITES, scope="module", loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One installation for all steps; it runs between them. Some modules have their own."""
    plan = plan_of(request.param, request)
    async with prepared_stack(tmp_path_factory.mktemp("stack"), plan) as prepared:
        await prepared.installation.standard([])
        await prepared.start_service()
        yield prepared
        await prepared.kill_service()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A server for all tests of this process."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Devices that wait for a service say so many times a second."""
    caplog.set_level(logging.ERROR, "device_client")
