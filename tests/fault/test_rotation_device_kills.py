"""Kill -9 of a device at every step of a renewal and of a recovery.

Whatever was lost, the next run ends as a member by one certificate; the old one has its grace or is
revoked, and none is left unproven.
"""

import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.settings import BrokerKind
from tests.fault.conftest import Kept
from tests.fault.device_command import run_dying_device
from tests.support.rotating import EXPIRING, assert_settled, key_of, member, renewed
from tests.support.stack import Plan, Stack, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

RENEWAL: Final = {
    "mkdir": 1,
    "write": 6,
    "fsync": 12,
    "replace": 8,
    "rename": 1,
    "symlink": 2,
    "unlink": 13,
    "rmdir": 1,
}
RECOVERY: Final = {**RENEWAL, "write": 7, "fsync": 14, "replace": 10, "unlink": 14}
RENEWAL_TALK: Final = {"subscribe": 3, "publish": 3, "next": 3}
RECOVERY_TALK: Final = {"subscribe": 2, "publish": 2, "next": 2}
"""How often each step happens; `test_no_step_was_forgotten` keeps it true."""


def on_the_network(steps: dict[str, int]) -> dict[str, int]:
    return {f"{step}-{when}": n for step, n in steps.items() for when in ("before", "after")}


def each(how_many: dict[str, int]) -> list[str]:
    return [f"{step}:{nth}" for step, many in how_many.items() for nth in range(1, many + 1)]


def over_brokers(disk: dict[str, int], talk: dict[str, int]) -> pytest.MarkDecorator:
    """What a device's disk does has nothing to do with the broker; what it hears has."""
    said = each(on_the_network(talk))
    cases = [(BrokerKind.EMBEDDED, step) for step in each(disk) + said]
    cases += [(BrokerKind.MOSQUITTO, step) for step in said]
    return pytest.mark.parametrize(("stack", "step"), cases, indirect=["stack"], ids=str)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all steps."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        limits: dict[str, str | float] = {"client_claims_burst": 1000}
        plan = Plan(request.param, limits=limits)
        async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
            await running.installation.standard([])
            yield running

    return await kept.get(request.param, installed)


async def command(state: Path, verb: str, step: str = "none:0") -> tuple[int, str]:
    """`muster-device` to its end; its exit status and what it printed."""
    return await run_dying_device(step, verb, "--state", state)


@pytest.mark.parametrize("stack", BrokerKind, indirect=True, ids=str)
async def test_no_step_was_forgotten(stack: Stack, tmp_path: Path) -> None:
    await member(stack, tmp_path / "renews")
    _, said = await command(tmp_path / "renews", "renew")
    assert counted(said) == {**RENEWAL, **on_the_network(RENEWAL_TALK)}
    await member(stack, tmp_path / "recovers", EXPIRING)
    _, said = await command(tmp_path / "recovers", "claim")
    assert counted(said) == {**RECOVERY, **on_the_network(RECOVERY_TALK)}


def counted(said: str) -> dict[str, int]:
    found: dict[str, int] = json.loads(said.splitlines()[-1])
    return found


@over_brokers(RENEWAL, RENEWAL_TALK)
async def test_kill_while_renewing(stack: Stack, step: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state)
    old_key = key_of(state)
    assert (await command(state, "renew", step))[0] == -signal.SIGKILL
    assert (await command(state, "claim"))[0] == 0
    await renewed(stack, serial, state)
    assert key_of(state) != old_key
    await assert_settled(stack, serial, state)


@over_brokers(RECOVERY, RECOVERY_TALK)
async def test_kill_while_recovering(stack: Stack, step: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    serial = await member(stack, state, EXPIRING)
    old_key = key_of(state)
    assert (await command(state, "claim", step))[0] == -signal.SIGKILL
    assert (await command(state, "claim"))[0] == 0
    assert key_of(state) != old_key
    await assert_settled(stack, serial, state)
