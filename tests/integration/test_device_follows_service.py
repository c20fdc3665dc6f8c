"""The agent and the service together: an order is followed, and a second one after it."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.composition.registries import open_registry
from broker.core.lifecycle import CertificateState
from broker.protocol import codec
from broker.protocol.messages import RotationOrder
from broker.protocol.topics import Desired, desired_topic
from broker.settings import BrokerKind
from device_client import keystore
from tests.support.device_agents import device
from tests.support.rotating import assert_settled
from tests.support.running_agents import REPEATING
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually


@pytest.mark.parametrize("brokers", BrokerKind, ids=str)
async def test_orders_are_followed(brokers: BrokerKind, tmp_path: Path) -> None:
    state = tmp_path / "device"
    async with running_stack(tmp_path, Plan(brokers)) as stack:
        await stack.installation.standard(["A1"])
        with device(state, stack.bundle(), "A1", timing=REPEATING) as (agent, _):
            life = asyncio.create_task(agent.run())
            try:
                await eventually(lambda: stack.is_active("A1"))
                await order(stack, 1)
                await eventually(lambda: follows(state, 1))
                await order(stack, 2)
                await eventually(lambda: follows(state, 2))
            finally:
                life.cancel()
                await asyncio.wait([life])
        await assert_settled(stack, "A1", state)
        certificates = await stack.certificates_of("A1")
    states = [c.state for c in certificates]
    assert states == [*[CertificateState.SUPERSEDED] * 2, CertificateState.ACTIVE]


async def order(stack: Stack, version: int) -> None:
    """Retained as a campaign's is, though none gave it."""
    topic = desired_topic((await stack.device("A1")).id, Desired.ROTATION)
    payload = codec.encode(RotationOrder(version=version, renew_by=datetime.now(UTC)))
    installation = stack.installation
    async with open_registry(installation.home, installation.settings) as registry:
        await registry.write(lambda tx: tx.retain({topic: payload}))


def follows(state: Path, version: int) -> bool:
    """Whether it has, with nothing left to put away."""
    store = keystore.looked_at(state)
    identity = store.current()
    if identity is None or identity.order != version or identity.confirmed_at is None:
        return False
    return store.succession.successor() is None
