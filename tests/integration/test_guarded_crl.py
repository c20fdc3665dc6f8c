"""A bad CRL file and Mosquitto under its supervisor: nobody slips in, and nobody is locked out,
also when Mosquitto is told to read it at once, and while there is no service to repair it.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from broker.core.lifecycle import DeviceInput
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.integration.test_damaged_crl import DAMAGES, Damage, crl_file, is_repaired, is_whole
from tests.support.acting import act, end_watch, is_admitted, joined
from tests.support.certificates import Client
from tests.support.knocking import Answer, knock
from tests.support.mosquitto import RunningMosquitto
from tests.support.stack import Plan, Stack, prepared_stack, running_stack
from tests.support.waiting import eventually

PLAN = Plan(BrokerKind.MOSQUITTO, supervised=True)
ENOUGH = 10


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    """What happens to the file."""
    return DAMAGES[request.param]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, PLAN) as running:
        await running.installation.standard([])
        yield running


async def one_in_one_out(stack: Stack, place: Path) -> tuple[Client, Client]:
    """A member, and a device whose revocation is long over."""
    member, revoked = await joined(stack, place, "A1", "B2")
    await act(stack, DeviceInput.REVOKE, revoked.name)
    await end_watch(stack, revoked.name)
    return member, revoked


class Knocks:
    """How often somebody has knocked, each time with the same answer."""

    def __init__(self) -> None:
        self.count = 0

    async def keep_knocking(self, port: int, client: Client, expected: Answer) -> None:
        while True:
            assert await knock(port, client) is expected, f"{client.name}, knock {self.count}"
            self.count += 1


@asynccontextmanager
async def knocking(port: int, client: Client, expected: Answer) -> AsyncIterator[Knocks]:
    """Knocks again and again, with a failure at the first other answer."""
    knocks = Knocks()
    task = asyncio.create_task(knocks.keep_knocking(port, client, expected))

    def goes_on() -> bool:
        if task.done():
            task.result()
        return knocks.count >= ENOUGH

    try:
        await eventually(goes_on)
        yield knocks
        knocks.count = 0
        await eventually(goes_on)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def reload(broker: RunningMosquitto, process: int) -> None:
    """Signals that process until Mosquitto reads its files: it forgets what comes in a reload."""
    before = broker.log().count("Reloading config")

    def begins() -> bool:
        os.kill(process, signal.SIGHUP)
        return broker.log().count("Reloading config") > before

    await eventually(begins)


def mosquitto_of(broker: RunningMosquitto) -> int:
    """The process below the supervisor, which has others for moments."""
    children = psutil.Process(broker.pid).children()
    (found,) = [child.pid for child in children if "mosquitto" in _name_of(child)]
    return found


def _name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@pytest.mark.parametrize("service", ["runs", "is down"])
async def test_whoever_has_mosquitto_read_it_at_once_lets_nobody_in_and_locks_nobody_out(
    stack: Stack, tmp_path: Path, damage: Damage, service: str
) -> None:
    member, revoked = await one_in_one_out(stack, tmp_path)
    if service == "is down":
        await stack.stop_service()
    broker, port = stack.brokers[Zone.FLEET], stack.ports[Zone.FLEET]
    async with (
        knocking(port, revoked, Answer.REFUSED),
        knocking(port, member, Answer.ADMITTED),
    ):
        damage(stack, crl_file(stack))
        await reload(broker, broker.pid)
        # Also past the supervisor: what Mosquitto reads are its copies.
        await reload(broker, mosquitto_of(broker))
    if service == "runs":
        await eventually(lambda: is_repaired(stack))
        assert is_whole(stack, revoked)
    else:
        assert f"not read, {_as_configured(crl_file(stack))}" in broker.log()


def _as_configured(file: Path) -> str:
    return f"{file.parents[2]}/run/etc-fleet/crl/{file.name}"


async def test_a_broker_that_starts_with_it_goes_on_with_what_it_had(
    stack: Stack, tmp_path: Path, damage: Damage
) -> None:
    member, revoked = await one_in_one_out(stack, tmp_path)
    await stack.stop_service()
    damage(stack, crl_file(stack))
    await stack.brokers[Zone.FLEET].restart()
    assert not await is_admitted(stack, revoked)
    assert await is_admitted(stack, member)


async def test_an_act_is_carried_out_after_it_was_damaged(stack: Stack, tmp_path: Path) -> None:
    member, lamp = await joined(stack, tmp_path, "A1", "B2")
    crl_file(stack).unlink()
    await reload(stack.brokers[Zone.FLEET], stack.brokers[Zone.FLEET].pid)
    await act(stack, DeviceInput.REVOKE, lamp.name)
    assert not await is_admitted(stack, lamp)
    assert await is_admitted(stack, member)


async def test_a_first_start_waits_for_a_file_that_is_good(tmp_path: Path) -> None:
    async with prepared_stack(tmp_path, PLAN) as stack:
        await stack.installation.standard([])
        broker, file = stack.brokers[Zone.FLEET], crl_file(stack)
        await broker.kill()
        for copy in (broker.endpoint.admin_socket.parent / "in-use").iterdir():
            copy.unlink()
        good = file.read_bytes()
        file.unlink()
        starting = asyncio.create_task(broker.restart())
        await eventually(lambda: "not read" in broker.log())
        assert not starting.done()
        file.write_bytes(good)
        await starting
        await stack.start_service()
        (member,) = await joined(stack, tmp_path, "A1")
        assert await is_admitted(stack, member)
