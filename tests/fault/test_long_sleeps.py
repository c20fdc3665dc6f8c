"""A device dies between the proof of a certificate and its own note of that, and sleeps for long.

When it wakes, everything that it holds has expired. Only the service knows which certificate it saw
proven last, and takes no other for a recovery; the device must still have that one's key.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from broker.protocol.bundle import write_bundle
from broker.settings import BrokerKind
from device_client import keystore
from device_client.identity import Origin
from tests.fault.conftest import Kept
from tests.fault.device_command import run_dying_device
from tests.support.expired import sleep_past_expiry
from tests.support.rotating import assert_settled, member
from tests.support.stack import Plan, Stack, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEATHS = {
    "before its successor is proven": "publish-before:3",
    "when its successor is proven": "next-after:3",
}
over_brokers = pytest.mark.parametrize("stack", BrokerKind, indirect=True, ids=str)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all deaths."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        async with running_stack(tmp_path_factory.mktemp("stack"), Plan(request.param)) as running:
            await running.installation.standard([])
            yield running

    return await kept.get(request.param, installed)


@over_brokers
@pytest.mark.parametrize("step", DEATHS.values(), ids=DEATHS)
async def test_death_while_renewing(stack: Stack, step: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state)
    status, _ = await run_dying_device(step, "renew", "--state", state)
    assert status == -signal.SIGKILL
    assert keystore.looked_at(state).succession.successor() is not None
    await wakes_after_expiry(stack, serial, state)


@over_brokers
async def test_death_when_its_claim_is_proven(stack: Stack, tmp_path: Path) -> None:
    serial, state = "first-proof", tmp_path / "state"
    await stack.installation.enroll([serial])
    bundle = tmp_path / "bundle.json"
    await asyncio.to_thread(bundle.write_bytes, write_bundle(stack.bundle()))
    options = ("--state", state, "--bundle", bundle, "--serial", serial)
    status, _ = await run_dying_device("next-after:2", "claim", *options)
    assert status == -signal.SIGKILL
    assert await stack.is_active(serial)
    await wakes_after_expiry(stack, serial, state)


async def wakes_after_expiry(stack: Stack, serial: str, state: Path) -> None:
    """It comes back by itself, under its name and by its history."""
    await sleep_past_expiry(stack, state)
    status, _ = await run_dying_device("none:0", "claim", "--state", state)
    assert status == 0
    await assert_settled(stack, serial, state)
    identity = keystore.looked_at(state).current()
    assert identity is not None
    assert identity.origin is Origin.RECOVERY
