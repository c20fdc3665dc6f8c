"""A device whose clock is wrong, and the service as it is: its whole life, on either broker."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from broker.core.lifecycle import CertificateState
from broker.settings import BrokerKind
from device_client import keystore, status
from device_client.identity import Identity, Origin
from device_client.timekeeping import Standing
from tests.support.acting import run_muster
from tests.support.device_agents import device
from tests.support.expired import sleep_past_expiry
from tests.support.rotating import assert_settled
from tests.support.running_agents import REPEATING
from tests.support.stack import Plan, Stack, running_stack
from tests.support.strange_clocks import Clock, since_1970, years_ahead
from tests.support.waiting import eventually

CLOCKS = {
    "1970": (since_1970, Standing.BEHIND),
    "20-years-ahead": (partial(years_ahead, 20), Standing.AHEAD),
}


@pytest.mark.parametrize(("make_clock", "standing"), CLOCKS.values(), ids=CLOCKS)
@pytest.mark.parametrize("brokers", BrokerKind, ids=str)
async def test_it_claims_renews_by_order_and_recovers(
    brokers: BrokerKind, make_clock: Callable[[], Clock], standing: Standing, tmp_path: Path
) -> None:
    state, clock = tmp_path / "device", make_clock()
    async with running_stack(tmp_path, Plan(brokers)) as stack:
        await stack.installation.standard(["A1"])
        async with living(stack, state, clock):
            claimed = await proven(stack, state, lambda _: True)
            assert status.report(state).clock is standing
            ended, _, err = await run_muster(stack, "rotate", "start", "--all")
            assert ended == 0, err
            renewed = await proven(stack, state, lambda one: one.order > 0)
            assert renewed.origin is Origin.RENEWAL
        await sleep_past_expiry(stack, state)
        async with living(stack, state, clock):
            recovered = await proven(stack, state, lambda one: one.origin is Origin.RECOVERY)
        await assert_settled(stack, "A1", state)
        states = [c.state for c in await stack.certificates_of("A1")]
    assert len({one.key_sha256 for one in (claimed, renewed, recovered)}) == 3
    assert states.count(CertificateState.ACTIVE) == 1
    assert {one.device_id for one in (claimed, renewed, recovered)} == {"lamp-A1"}


@asynccontextmanager
async def living(stack: Stack, state: Path, clock: Clock) -> AsyncIterator[None]:
    """An agent that runs, by that clock, until the end of the block."""
    with device(state, stack.bundle(), "A1", timing=REPEATING, clock=clock) as (agent, _):
        life = asyncio.create_task(agent.run())
        try:
            yield
        finally:
            life.cancel()
            await asyncio.wait([life])


async def proven(stack: Stack, state: Path, wanted: Callable[[Identity], bool]) -> Identity:
    """The identity in use, as soon as it's one like that which the service has seen proven, too."""
    found: list[Identity] = []

    async def is_it() -> bool:
        store = keystore.looked_at(state)
        one, successor = store.current(), store.succession.successor()
        found[:] = [one] if one and one.confirmed_at and not successor and wanted(one) else []
        return bool(found) and await stack.is_active("A1")

    await eventually(is_it)
    return found[0]
