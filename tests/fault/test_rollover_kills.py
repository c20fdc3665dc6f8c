"""Kill -9 of the service, and of the operator's command, at every step of an authority's change.

Each device has an identity that is let in, all the time on a broker that lives on; and the same
command, or the next life of the service, finishes the job.
"""

import asyncio
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio

from broker.core.ca_rollover import Phase, is_under_way
from broker.core.lifecycle import DeviceInput, DeviceState
from broker.settings import BrokerKind
from tests.fault.conftest import Kept
from tests.fault.dying_rollover import COMMAND_STEPS, LEAVING_STEPS, SERVICE_STEPS
from tests.support.acting import act, is_admitted
from tests.support.csrs import fresh_key
from tests.support.members import Holder, as_client, connected, join, prove
from tests.support.rolling import issuer_of, look, moved, operate, reached, roll, start
from tests.support.stack import Plan, Stack, prepared_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)


@pytest_asyncio.fixture(loop_scope="module")
async def stack(
    request: pytest.FixtureRequest, kept: Kept, tmp_path_factory: pytest.TempPathFactory
) -> Stack:
    """One installation for all kills: each goes from one authority to the next."""

    @asynccontextmanager
    async def installed() -> AsyncIterator[Stack]:
        plan = Plan(request.param, in_process=False, forks=True)
        async with prepared_stack(tmp_path_factory.mktemp("stack"), plan) as prepared:
            await prepared.installation.standard([])
            await prepared.start_service()
            yield prepared
            await prepared.kill_service()

    return await kept.get(request.param, installed)


def over_brokers(steps: Sequence[str]) -> pytest.MarkDecorator:
    """What is put in force is the broker's matter; what is committed has nothing to do with it."""
    cases = [(BrokerKind.MOSQUITTO, step) for step in steps]
    cases += [(BrokerKind.EMBEDDED, step) for step in steps if not step.startswith("stepped")]
    return pytest.mark.parametrize(("stack", "step"), cases, indirect=["stack"], ids=str)


with_mosquitto = pytest.mark.parametrize("stack", [BrokerKind.MOSQUITTO], indirect=True, ids=str)
"""For deaths of the command, which has no broker."""


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def cleared(stack: Stack) -> AsyncIterator[None]:
    """The devices of one test aren't left behind by the rollover of the next."""
    yield
    gone = [each.id for each in await stack.devices() if each.state is not DeviceState.RETIRED]
    await act(stack, DeviceInput.RETIRE, *gone, within_s=0)


async def newcomer(stack: Stack, place: Path) -> Holder:
    """A device that claims now."""
    serial = f"K{next(_numbers)}"
    await stack.installation.enroll([serial])
    return await join(stack, place, serial)


async def renewed(stack: Stack, holder: Holder, place: Path) -> Holder:
    """The same device with a new certificate that it has proven."""
    key = fresh_key()
    async with connected(stack, holder, place) as connection:
        successor = holder.given(key, await connection.renew(key))
    await prove(stack, successor, place)
    return successor


async def admits(stack: Stack, holder: Holder, place: Path) -> bool:
    """Whether the fleet's broker lets it in now."""
    return await is_admitted(stack, await asyncio.to_thread(as_client, stack, holder, place))


async def dies(stack: Stack, step: str) -> None:
    """Starts the service, which then dies of itself at `step`."""
    await stack.process.dies("dying_rollover", step)


async def command_dies(stack: Stack, step: str, *arguments: str) -> None:
    """'muster ca rollover …', killed at `step`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fault.dying_rollover", step),
        *("--home", str(stack.home.path), "ca", "rollover", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name[:7] != "MUSTER_"},
    )
    _, said = await process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()


async def finished(stack: Stack, devices: list[Holder], place: Path) -> list[Holder]:
    """The rollover, taken to its end; the devices with their new identities."""
    standing = await reached(stack, Phase.MOVING)
    assert standing.rollover is not None
    goal = issuer_of(stack, standing.rollover.new)
    successors = [
        each if each.leaf.issuer == goal else await renewed(stack, each, place) for each in devices
    ]
    await moved(stack)
    await operate(stack, lambda rollovers: rollovers.finish(0))
    await reached(stack, Phase.DONE)
    await _settled(stack, goal, devices, successors, place)
    return successors


async def _settled(
    stack: Stack, goal: object, before: list[Holder], after: list[Holder], place: Path
) -> None:
    """Every device is let in with what it has now, and with nothing of the old authority."""
    for old, new in zip(before, after, strict=True):
        assert new.leaf.issuer == goal
        assert await admits(stack, new, place)
        if old.leaf.issuer != goal:
            assert not await admits(stack, old, place)


@over_brokers(SERVICE_STEPS)
async def test_the_service_dies_while_the_new_authority_comes(
    stack: Stack, step: str, tmp_path: Path
) -> None:
    device = await newcomer(stack, tmp_path)
    await stack.kill_service()
    await start(stack)
    await dies(stack, step)
    if stack.plan.brokers is BrokerKind.MOSQUITTO:
        assert await admits(stack, device, tmp_path)
    await stack.start_service()
    assert await admits(stack, device, tmp_path)
    late = await newcomer(stack, tmp_path)
    await finished(stack, [device, late], tmp_path)


@over_brokers(LEAVING_STEPS)
async def test_the_service_dies_while_the_old_authority_goes(
    stack: Stack, step: str, tmp_path: Path
) -> None:
    old = await newcomer(stack, tmp_path)
    await start(stack)
    await reached(stack, Phase.MOVING)
    device = await renewed(stack, old, tmp_path)
    await moved(stack)
    await stack.kill_service()
    await operate(stack, lambda rollovers: rollovers.finish(0))
    await dies(stack, step)
    if stack.plan.brokers is BrokerKind.MOSQUITTO:
        assert await admits(stack, device, tmp_path)
    await stack.start_service()
    await reached(stack, Phase.DONE)
    await _settled(stack, device.leaf.issuer, [old], [device], tmp_path)


@with_mosquitto
@pytest.mark.parametrize("step", COMMAND_STEPS)
async def test_the_command_dies_at_the_start(stack: Stack, step: str, tmp_path: Path) -> None:
    device = await newcomer(stack, tmp_path)
    before = (await look(stack)).rollover
    await command_dies(stack, step, "start", "--per-minute", "6000")
    assert await admits(stack, device, tmp_path)
    known = (await look(stack)).rollover
    assert known == before or is_under_way(known)
    said = await roll(stack, "start", "--per-minute", "6000")
    assert said["phase"] != "done"
    await finished(stack, [device], tmp_path)


@with_mosquitto
@pytest.mark.parametrize("step", [step for step in COMMAND_STEPS if step.startswith("acted")])
async def test_the_command_dies_at_the_end(stack: Stack, step: str, tmp_path: Path) -> None:
    old = await newcomer(stack, tmp_path)
    await start(stack)
    await reached(stack, Phase.MOVING)
    device = await renewed(stack, old, tmp_path)
    await moved(stack)
    await command_dies(stack, step, "finish")
    assert await admits(stack, device, tmp_path)
    assert (await roll(stack, "finish"))["phase"] in ("leaving", "done")
    await reached(stack, Phase.DONE)
    await _settled(stack, device.leaf.issuer, [old], [device], tmp_path)


@with_mosquitto
@pytest.mark.parametrize("step", [step for step in COMMAND_STEPS if step.startswith("acted")])
async def test_the_command_dies_on_the_way_back(stack: Stack, step: str, tmp_path: Path) -> None:
    stayed = await newcomer(stack, tmp_path)
    await start(stack)
    await reached(stack, Phase.MOVING)
    went = await newcomer(stack, tmp_path)
    await command_dies(stack, step, "cancel")
    assert await admits(stack, stayed, tmp_path)
    assert await admits(stack, went, tmp_path)
    assert (await roll(stack, "cancel"))["cancelled"] is True
    await finished(stack, [stayed, went], tmp_path)
