"""Each test runs on every broker; each has authorities of its own."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.protocol.zones import Zone
from tests.support.brokers import KINDS, Site, run_site
from tests.support.certificates import Certificates


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which broker."""
    name: str = request.param
    return name


@pytest.fixture
async def certificates(tmp_path: Path) -> Certificates:
    """The authorities."""
    return await asyncio.to_thread(Certificates, tmp_path)


@pytest.fixture
async def claims(kind: str, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Site]:
    """The claim zone."""
    async with run_site(kind, Zone.CLAIM, certificates, tmp_path) as site:
        yield site


@pytest.fixture
async def fleet(kind: str, certificates: Certificates, tmp_path: Path) -> AsyncIterator[Site]:
    """The fleet zone."""
    async with run_site(kind, Zone.FLEET, certificates, tmp_path) as site:
        yield site
