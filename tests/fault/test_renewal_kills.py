"""Kill -9 of the service before and after every durable step of a renewal, and of a recovery.

The device repeats itself until it is answered. In the end it has one certificate that works, and
the old one doesn't: never two beyond the grace, and never none.
"""

import asyncio
import itertools
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import aiomqtt
import pytest
import pytest_asyncio

from broker.core.lifecycle import CertificateState
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.settings import BrokerKind
from tests.fault.dying_renewal import RECOVERING, RENEWING
from tests.support.acting import is_admitted
from tests.support.csrs import fresh_key
from tests.support.members import Holder, Key, as_client, connected, join, prove, recover
from tests.support.postgres import PostgresCluster
from tests.support.stack import Plan, Stack, prepared_stack
from tests.support.waiting import eventually

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # The client's library leaves its socket behind when the broker dies during the handshake.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

GRACE: Final = timedelta(seconds=1)
SHORT: Final = timedelta(seconds=8)
_numbers = itertools.count(1)


@pytest_asyncio.fixture(
    params=["embedded-sqlite", "mosquitto-sqlite", "mosquitto-postgresql"],
    scope="module",
    loop_scope="module",
)
async def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    """One installation for all steps; it runs between them."""
    kind, _, database = request.param.partition("-")
    url = "sqlite:///registry.db"
    if database == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        url = cluster.new_database()
    plan = Plan(BrokerKind(kind), url, in_process=False, limits={"client_claims_burst": 1000})
    async with prepared_stack(tmp_path_factory.mktemp("stack"), plan) as prepared:
        await prepared.installation.standard([])
        await prepared.start_service()
        yield prepared
        await prepared.kill_service()


async def a_member(stack: Stack, place: Path, lifetime: timedelta) -> Holder:
    """A member of its own for each test, whose next certificate lasts as usual."""
    serial = f"N{next(_numbers)}"
    await stack.installation.enroll([serial])
    await stack.installation.save_group(rotation_grace=GRACE, lifetime=lifetime)
    holder = await join(stack, place, serial)
    await stack.installation.save_group(rotation_grace=GRACE)
    return holder


async def repeated(act: Callable[[], Awaitable[None]]) -> None:
    """Does it until it's done, as a device does while its service dies and comes back."""

    async def is_done() -> bool:
        try:
            await act()
        except (aiomqtt.MqttError, TimeoutError):
            return False
        return True

    await eventually(is_done, within=60)


async def proven(
    stack: Stack,
    old: Holder,
    place: Path,
    ask: Callable[[Key], Awaitable[EnrollAccepted | Rejected]],
) -> Holder:
    """The device with its next certificate."""
    key, held = fresh_key(), old

    async def act() -> None:
        nonlocal held
        if held is old:
            held = old.given(key, await ask(key))
        await prove(stack, held, place)

    await repeated(act)
    return held


async def through_a_death(stack: Stack, step: str, rotation: Awaitable[Holder]) -> Holder:
    """The service dies at `step` while `rotation` goes on, and is started again."""
    await stack.kill_service()
    await stack.process.launch("-m", "tests.fault.dying_renewal", f"{step}:1")
    going_on = asyncio.ensure_future(rotation)
    try:
        ended = await stack.process.ended(within=30)
        assert ended == -signal.SIGKILL, stack.process.log()[-3000:]
        await stack.start_service()
        return await going_on
    finally:
        going_on.cancel()


async def assert_one_identity(stack: Stack, old: Holder, new: Holder, place: Path) -> None:
    async def states() -> list[CertificateState]:
        found = await stack.certificates_of(old.device_id.removeprefix("lamp-"))
        return [certificate.state for certificate in found]

    async def is_settled() -> bool:
        return await states() == [CertificateState.REVOKED, CertificateState.ACTIVE]

    await eventually(is_settled, within=15)
    assert await is_admitted(stack, as_client(stack, new, place))

    async def is_out() -> bool:
        return not await is_admitted(stack, as_client(stack, old, place))

    await eventually(is_out, within=5)


@pytest.mark.parametrize("step", RENEWING)
async def test_kill_while_a_device_renews(stack: Stack, step: str, tmp_path: Path) -> None:
    old = await a_member(stack, tmp_path, timedelta(days=90))

    async def ask(key: Key) -> EnrollAccepted | Rejected:
        async with connected(stack, old, tmp_path) as connection:
            return await connection.renew(key)

    new = await through_a_death(stack, step, proven(stack, old, tmp_path, ask))
    await assert_one_identity(stack, old, new, tmp_path)


@pytest.mark.parametrize("step", RECOVERING)
async def test_kill_while_a_device_recovers(stack: Stack, step: str, tmp_path: Path) -> None:
    old = await a_member(stack, tmp_path, SHORT)
    end = old.leaf.not_valid_after_utc
    await eventually(lambda: datetime.now(UTC) > end, within=20)

    async def ask(key: Key) -> EnrollAccepted | Rejected:
        return await recover(stack, old.recovery(key))

    new = await through_a_death(stack, step, proven(stack, old, tmp_path, ask))
    await assert_one_identity(stack, old, new, tmp_path)
