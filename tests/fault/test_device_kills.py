"""Kill -9 of a device at every step that changes its disk or goes over the network.

Whatever was lost, the next run ends as a member, and there is one certificate that works.
"""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio

from broker.protocol.bundle import write_bundle
from broker.settings import BrokerKind
from tests.fault.conftest import Kept
from tests.fault.device_command import run_dying_device
from tests.support.fleets import Fleet
from tests.support.stack import Plan, Stack, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

ON_DISK: Final = {
    "mkdir": 5,
    "write": 7,
    "fsync": 15,
    "replace": 7,
    "rename": 1,
    "symlink": 1,
    "unlink": 11,
}
ON_THE_NETWORK: Final = {
    f"{step}-{when}": 2 for step in ("subscribe", "publish", "next") for when in ("before", "after")
}
"""How often each step happens in one claim; `test_no_step_was_forgotten` keeps it true."""
_numbers = itertools.count(1)


def each(how_many: dict[str, int]) -> list[str]:
    return [f"{step}:{nth}" for step, many in how_many.items() for nth in range(1, many + 1)]


def over_brokers() -> pytest.MarkDecorator:
    """What a device's disk does has nothing to do with the broker; what it hears has."""
    cases = [(BrokerKind.EMBEDDED, step) for step in each(ON_DISK) + each(ON_THE_NETWORK)]
    cases += [(BrokerKind.MOSQUITTO, step) for step in each(ON_THE_NETWORK)]
    return pytest.mark.parametrize(("stack", "step"), cases, indirect=["stack"], ids=str)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all steps."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        plan = Plan(request.param)
        async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
            await running.installation.standard([])
            yield running

    return await kept.get(request.param, installed)


async def claim(stack: Stack, serial: str, place: Path, step: str = "none:0") -> tuple[int, str]:
    """`muster-device claim` to its end; its exit status and what it printed."""
    bundle = place / "bundle.json"
    await asyncio.to_thread(bundle.write_bytes, write_bundle(stack.bundle()))
    options = ("--state", place / serial, "--bundle", bundle, "--serial", serial)
    return await run_dying_device(step, "claim", *options)


@pytest.mark.parametrize("stack", BrokerKind, indirect=True, ids=str)
async def test_no_step_was_forgotten(stack: Stack, tmp_path: Path) -> None:
    serial = f"whole-{next(_numbers)}"
    await stack.installation.enroll([serial])
    _, said = await claim(stack, serial, tmp_path)
    assert json.loads(said.splitlines()[-1]) == {**ON_DISK, **ON_THE_NETWORK}


@over_brokers()
async def test_kill_before(stack: Stack, step: str, tmp_path: Path) -> None:
    serial = f"{step.replace(':', '-')}-{next(_numbers)}"
    fleet = Fleet(stack, tmp_path, [serial])
    await fleet.register()
    assert (await claim(stack, serial, tmp_path, step))[0] == -signal.SIGKILL
    assert (await claim(stack, serial, tmp_path))[0] == 0
    await fleet.assert_whole()
