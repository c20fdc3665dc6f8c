"""Installations that are made once for many kills; every test brings devices of its own."""

import logging
from collections.abc import Iterator

import pytest

from tests.support.postgres import PostgresCluster, postgres_cluster


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    """A server for all tests of this process."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Devices that wait for a service say so many times a second."""
    caplog.set_level(logging.ERROR, "device_client")
