"""Kill -9 of the service before and after every durable step, while devices claim.

In the end every device is a member by itself, with exactly one certificate that works.
"""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import aiomqtt
import pytest
import pytest_asyncio

from broker.core.lifecycle import CertificateState
from broker.protocol.messages import EnrollAccepted, EnrollRequest
from tests.fault.conftest import SITES, Kept, plan_of
from tests.fault.dying_service import COMMIT_STEPS, CRL_STEPS, LINK_STEPS
from tests.support.claimant import claimant, enroll_request
from tests.support.fleets import Fleet
from tests.support.stack import Stack, prepared_stack
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICES: Final = 5
_PATIENCE_S: Final = 5.0
LAPSE_STEPS: Final = tuple(s for s in COMMIT_STEPS if s.startswith("lapse")) + CRL_STEPS
CLAIM_STEPS: Final = tuple(s for s in COMMIT_STEPS if s not in LAPSE_STEPS) + LINK_STEPS
_numbers = itertools.count(1)


def over_sites(steps: Sequence[str]) -> pytest.MarkDecorator:
    """Every step on both sites."""
    cases = [(site, step) for site in SITES for step in steps]
    return pytest.mark.parametrize(("stack", "step"), cases, indirect=["stack"])


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all steps; a test leaves its service running, or dead."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        plan = plan_of(request.param, request)
        async with prepared_stack(tmp_path_factory.mktemp("stack"), plan) as prepared:
            await prepared.installation.standard([])
            yield prepared
            await prepared.kill_service()

    return await kept.get(request.param, installed)


def a_fleet(stack: Stack, step: str, place: Path) -> Fleet:
    serials = [f"{step}-{next(_numbers)}" for _ in range(DEVICES)]
    return Fleet(stack, place, serials)


async def launch_dying(stack: Stack, step: str, nth: int, confirm_within: str) -> None:
    """The service, about to die; whatever it was before is killed."""
    await stack.kill_service()
    stack.process.environment["MUSTER_LIMITS__CONFIRM_WITHIN"] = confirm_within
    await stack.process.launch("-m", "tests.fault.dying_service", f"{step}:{nth}")


async def killed(stack: Stack) -> None:
    """Returns when it has died of itself, and not otherwise."""
    ended = await stack.process.ended(within=60)
    assert ended == -signal.SIGKILL, stack.process.log()[-3000:]


@over_sites(CLAIM_STEPS)
async def test_kill_while_devices_claim(stack: Stack, step: str, tmp_path: Path) -> None:
    """At the second time, so that one device is through and others are under way."""
    fleet = a_fleet(stack, step, tmp_path)
    await fleet.register()
    nth = 1 if step.startswith("outbox") else 2
    await launch_dying(stack, step, nth, "15m")
    async with asyncio.TaskGroup() as tasks:
        claims = tasks.create_task(fleet.claim())
        await killed(stack)
        await stack.start_service()
        await claims
    await fleet.assert_whole()


@over_sites(LAPSE_STEPS)
async def test_kill_while_a_certificate_lapses(stack: Stack, step: str, tmp_path: Path) -> None:
    """One device never confirms; in the end its certificate is revoked and the CRL says so."""
    fleet = a_fleet(stack, step, tmp_path)
    await fleet.register()
    silent = f"{step}-silent"
    await stack.installation.enroll([silent])
    await launch_dying(stack, step, 1, "1s")
    async with asyncio.TaskGroup() as tasks:
        claims = tasks.create_task(fleet.claim())
        request = enroll_request(silent)
        silence = tasks.create_task(eventually(lambda: is_granted(stack, request), within=60))
        await killed(stack)
        await stack.start_service()
        await claims
        await silence
    await fleet.assert_whole()
    await eventually(lambda: is_revoked_everywhere(stack, silent))


async def is_granted(stack: Stack, request: EnrollRequest) -> bool:
    """Asks once, and never confirms. Who asks before the service is there isn't answered."""
    try:
        async with asyncio.timeout(_PATIENCE_S), claimant(stack, request.serial) as asking:
            return isinstance(await asking.enroll(request), EnrollAccepted)
    except (aiomqtt.MqttError, TimeoutError):
        return False


async def is_revoked_everywhere(stack: Stack, serial: str) -> bool:
    certificates = await stack.certificates_of(serial)
    if any(c.state is not CertificateState.REVOKED for c in certificates):
        return False
    return {int(c.serial, 16) for c in certificates} <= stack.revoked_serials()
