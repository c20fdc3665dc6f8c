"""Running installations over both kinds of broker and both databases."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.settings import BrokerKind
from tests.support.stack import Plan, Stack, running_stack


@pytest.fixture(params=BrokerKind, ids=str)
def brokers(request: pytest.FixtureRequest) -> BrokerKind:
    """Which brokers."""
    kind: BrokerKind = request.param
    return kind


@pytest.fixture
def plan(brokers: BrokerKind) -> Plan:
    """What `stack` runs; a module may say otherwise."""
    return Plan(brokers)


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    """A running installation that knows nobody."""
    async with running_stack(tmp_path, plan) as running:
        yield running
