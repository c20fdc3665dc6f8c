"""Kill -9 of the service at every step of a renewal, a recovery, and the end of a grace.

In the end the device is a member by one new certificate that both agree on.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio

from broker.core.lifecycle import CertificateState
from device_client.identity import Identity
from tests.fault.conftest import SITES, Kept, plan_of
from tests.fault.dying_rotation import RECOVERY, RENEWAL, SWEEP
from tests.support.acting import as_client, is_admitted
from tests.support.certificates import Client
from tests.support.rotating import (
    DAYS,
    EXPIRING,
    assert_settled,
    kept_client,
    key_of,
    member,
    recovered,
    renewed,
)
from tests.support.stack import Stack, prepared_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all steps; it runs between them."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        plan = plan_of(request.param, request)
        async with prepared_stack(tmp_path_factory.mktemp("stack"), plan) as prepared:
            await prepared.installation.standard([])
            await prepared.start_service()
            yield prepared
            await prepared.kill_service()

    return await kept.get(request.param, installed)


def over_sites(steps: Sequence[str]) -> pytest.MarkDecorator:
    """Every step on one site; on the other all but "begun", where nothing has been written yet."""
    one, other = SITES
    cases = [(one, step) for step in steps]
    cases += [(other, step) for step in steps if "begun" not in step]
    return pytest.mark.parametrize(("stack", "step"), cases, indirect=["stack"], ids=str)


async def carried_on(stack: Stack, step: str, work: Callable[[], Awaitable[Identity]]) -> Identity:
    """What the device ends with, though the service dies at the step and is started again."""
    await stack.kill_service()
    await stack.process.launch("-m", "tests.fault.dying_rotation", step)
    device = asyncio.ensure_future(work())
    try:
        await stack.process.has_died()
        await stack.start_service()
        return await device
    finally:
        device.cancel()


@over_sites(RENEWAL)
async def test_kill_while_a_device_renews(stack: Stack, step: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state)
    old_key = key_of(state)
    new = await carried_on(stack, step, lambda: renewed(stack, serial, state))
    assert new.key_sha256 != old_key
    await assert_settled(stack, serial, state)


@over_sites(RECOVERY)
async def test_kill_while_a_device_recovers(stack: Stack, step: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state, EXPIRING)
    old_key = key_of(state)
    new = await carried_on(stack, step, lambda: recovered(stack, serial, state))
    assert new.key_sha256 != old_key
    await assert_settled(stack, serial, state)


@over_sites(SWEEP)
async def test_kill_while_a_grace_ends(stack: Stack, step: str, tmp_path: Path) -> None:
    """The old certificate is revoked in the end, and let in no more; the new one is untouched."""
    state = tmp_path / "state"
    serial = await member(stack, state)
    old_client = kept_client(stack, state, tmp_path / "old")
    await stack.installation.save_group(lifetime=DAYS, rotation_grace=timedelta())
    old_key = key_of(state)
    new = await carried_on(stack, step, lambda: renewed(stack, serial, state))

    async def is_revoked() -> bool:
        (old,) = [c for c in await stack.certificates_of(serial) if c.key_sha256 == old_key]
        return (
            old.state is CertificateState.REVOKED and int(old.serial, 16) in stack.revoked_serials()
        )

    await eventually(is_revoked, within=90)
    assert int(new.certificate_serial, 16) not in stack.revoked_serials()
    await eventually(lambda: is_kept_out(stack, old_client))
    assert await is_admitted(stack, as_client(stack, new))
    await stack.installation.save_group(lifetime=DAYS)
    await assert_settled(stack, serial, state)


async def is_kept_out(stack: Stack, client: Client) -> bool:
    return not await is_admitted(stack, client)
