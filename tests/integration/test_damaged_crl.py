"""A CRL file that is corrupt, missing, expired or old, under a real Mosquitto.

Told to read such a file, Mosquitto 2.0 goes on without any CRL; started with it, it ends. So the
service puts the file right before anybody is likely to tell Mosquitto, tells it again, and throws
off whoever may have slipped in.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest

from broker.adapters.brokers.crl_file import check_file
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.ca.file_authority import FileAuthority
from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import act, end_watch, is_admitted, is_complete, joined
from tests.support.certificates import Client
from tests.support.knocking import Answer, knock
from tests.support.peers import peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

Damage = Callable[[Stack, Path], None]


def _corrupt(_: Stack, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:200] + b"?" * 300)


def _missing(_: Stack, file: Path) -> None:
    file.unlink()


def _empty(_: Stack, file: Path) -> None:
    file.write_bytes(b"")


def _signed(stack: Stack, at: datetime) -> bytes:
    """A CRL by the right authority, that revokes nobody."""
    return FileAuthority.load(stack.home).sign_crl([], 1, at)


def _expired(stack: Stack, file: Path) -> None:
    file.write_bytes(_signed(stack, datetime.now(UTC) - timedelta(days=30)))


def _old(stack: Stack, file: Path) -> None:
    file.write_bytes(_signed(stack, datetime.now(UTC) - timedelta(hours=1)))


DAMAGES: Final[dict[str, Damage]] = {
    "corrupt": _corrupt,
    "missing": _missing,
    "empty": _empty,
    "expired": _expired,
    "old": _old,
}


@pytest.fixture(params=DAMAGES)
def damage(request: pytest.FixtureRequest) -> Damage:
    """What happens to the file."""
    return DAMAGES[request.param]


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as running:
        await running.installation.standard([])
        yield running


def crl_file(stack: Stack) -> Path:
    return stack.home.crl_file(Zone.FLEET)


def is_whole(stack: Stack, revoked: Client) -> bool:
    """Whether a broker that reads the file now refuses the revoked device, and nobody else."""
    try:
        check_file(crl_file(stack), datetime.now(UTC))
    except BrokerControlError:
        return False
    return revoked.leaf.serial_number in stack.revoked_serials()


async def never_admitted(stack: Stack, revoked: Client, enough: asyncio.Event) -> int:
    """Knocks until `enough`; how often it was turned away."""
    knocks = 0
    while not enough.is_set():
        # While Mosquitto is down there is nobody to refuse.
        with suppress(ConnectionRefusedError):
            answer = await knock(stack.ports[Zone.FLEET], revoked)
            assert answer is Answer.REFUSED, f"knock {knocks} was admitted"
            knocks += 1
    return knocks


async def is_repaired(stack: Stack) -> bool:
    """Whether the service has told of a repair."""
    return bool(await stack.events_of(EventKind.CRL_REPAIRED))


async def one_in_one_out(stack: Stack, place: Path) -> tuple[Client, Client]:
    """A member, and a device that was revoked."""
    member, revoked = await joined(stack, place, "A1", "B2")
    await act(stack, DeviceInput.REVOKE, revoked.name)
    return member, revoked


async def test_it_is_repaired_while_nobody_gets_in_and_nobody_is_locked_out(
    stack: Stack, tmp_path: Path, damage: Damage
) -> None:
    member, revoked = await one_in_one_out(stack, tmp_path)
    enough = asyncio.Event()
    knocking = asyncio.create_task(never_admitted(stack, revoked, enough))
    async with peer(stack.ports[Zone.FLEET], member) as connection:
        damage(stack, crl_file(stack))
        await eventually(lambda: is_whole(stack, revoked))
        os.kill(stack.brokers[Zone.FLEET].pid, signal.SIGHUP)
        await eventually(lambda: is_repaired(stack))
        enough.set()
        assert await knocking > 0
        await connection.hear(f"muster/v1/device/{member.name}/desired/#")
    assert await is_admitted(stack, member)
    assert not await is_admitted(stack, revoked)


async def test_who_slipped_in_before_the_repair_is_thrown_off(stack: Stack, tmp_path: Path) -> None:
    """The service is stopped, the file is damaged, and somebody tells Mosquitto to read it."""
    member, revoked = await one_in_one_out(stack, tmp_path)
    await end_watch(stack, revoked.name)
    await stack.stop_service()
    _corrupt(stack, crl_file(stack))
    os.kill(stack.brokers[Zone.FLEET].pid, signal.SIGHUP)

    async def is_open() -> bool:
        return await is_admitted(stack, revoked)

    await eventually(is_open)
    async with peer(stack.ports[Zone.FLEET], revoked) as slipped:
        await stack.start_service()
        await slipped.ended()
    assert not await is_admitted(stack, revoked)
    assert await is_admitted(stack, member)


async def test_a_service_that_starts_finds_and_repairs_it(
    stack: Stack, tmp_path: Path, damage: Damage
) -> None:
    member, revoked = await one_in_one_out(stack, tmp_path)
    await stack.stop_service()
    damage(stack, crl_file(stack))
    assert not await is_admitted(stack, revoked)
    await stack.start_service()
    await eventually(lambda: is_whole(stack, revoked))
    assert not await is_admitted(stack, revoked)
    assert await is_admitted(stack, member)


async def test_a_broker_that_starts_with_it_lets_nobody_in_until_it_is_repaired(
    stack: Stack, tmp_path: Path
) -> None:
    member, revoked = await one_in_one_out(stack, tmp_path)
    broker = stack.brokers[Zone.FLEET]
    await broker.kill()
    _corrupt(stack, crl_file(stack))
    await eventually(lambda: is_whole(stack, revoked))
    await broker.restart()
    assert not await is_admitted(stack, revoked)
    assert await is_admitted(stack, member)


async def test_an_act_while_the_broker_is_down_is_complete_when_it_is_back(
    stack: Stack, tmp_path: Path
) -> None:
    member, lamp = await joined(stack, tmp_path, "A1", "B2")
    broker = stack.brokers[Zone.FLEET]
    await broker.kill()
    (acted,) = await act(stack, DeviceInput.REVOKE, lamp.name, within_s=0.5)
    assert acted.lock_out is not None
    await broker.restart()
    assert not await is_admitted(stack, lamp)
    (again,) = await act(stack, DeviceInput.REVOKE, lamp.name)
    assert again.lock_out is not None
    assert again.lock_out.id == acted.lock_out.id
    assert await is_complete(stack, lamp.name)
    assert not await is_admitted(stack, lamp)
    assert await is_admitted(stack, member)
