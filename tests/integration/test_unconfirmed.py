"""Certificates that nobody proved: taken back, and their serial numbers free again."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker.adapters.ca.files import write_secret
from broker.composition.registries import open_registry
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from broker.protocol.zones import Zone
from device_client.keys import to_pem
from tests.support.certificates import Client
from tests.support.claimant import claimant, enroll_request
from tests.support.csrs import fresh_key
from tests.support.knocking import Answer, knock
from tests.support.peers import Peer, peer
from tests.support.stack import Plan, Stack
from tests.support.waiting import eventually

CONFIRM_WITHIN_S = 20.0


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return replace(on_both_databases, limits={"confirm_within": f"{CONFIRM_WITHIN_S:g}s"})


async def pending(stack: Stack, place: Path, serial: str = "A1") -> Client:
    """A device that claimed and didn't confirm, as a client of the fleet zone."""
    key = fresh_key()
    async with claimant(stack, serial) as asking:
        answer = await asking.enroll(enroll_request(serial, key))
    assert isinstance(answer, EnrollAccepted)
    chain, key_file = place / f"{serial}.crt", place / f"{serial}.key"
    chain.write_text(answer.certificate_chain)
    write_secret(key_file, to_pem(key).encode())
    return Client(answer.device_id, chain, key_file, stack.home.server_anchors)


async def is_revoked(stack: Stack, serial: str = "A1") -> bool:
    return all(c.state is CertificateState.REVOKED for c in await stack.certificates_of(serial))


async def let_lapse(stack: Stack) -> None:
    """As if the time were over in which devices may confirm; nothing here depends on its length."""
    unproven = [c for c in await stack.certificates() if c.state is CertificateState.ISSUED]
    assert unproven

    def work(tx: WriteTransaction) -> None:
        for each in unproven:
            tx.save_certificate(replace(each, confirm_by=datetime.now(UTC)))

    async with open_registry(stack.home, stack.installation.settings) as registry:
        await registry.write(work)


@asynccontextmanager
async def idle(stack: Stack, client: Client) -> AsyncIterator[Peer]:
    """Connected to the fleet and doing nothing there."""
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        yield connection


async def test_it_is_revoked_and_its_serial_number_free(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    await pending(stack, tmp_path)
    await let_lapse(stack)
    await eventually(lambda: is_revoked(stack))
    (certificate,) = await stack.certificates()
    assert certificate.revoked_for is RevocationReason.NEVER_CONFIRMED
    assert certificate.revoked_at is not None
    assert certificate.revoked_at >= certificate.confirm_by
    assert (await stack.device("A1")).state is DeviceState.REGISTERED
    assert (await stack.installation.group()).devices == 0
    assert (await stack.installation.claim_certificate()).claims == 0
    (event,) = await stack.events_of(EventKind.CERTIFICATE_REVOKED)
    assert (event.code, event.serial_number) == (RevocationReason.NEVER_CONFIRMED, "A1")


async def test_the_device_can_claim_again(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    await pending(stack, tmp_path)
    await let_lapse(stack)
    await eventually(lambda: is_revoked(stack))
    identity = await stack.claim_device("A1", tmp_path / "A1")
    (live,) = await stack.live_certificates("A1")
    assert live.certificate_sha256 == identity.certificate_sha256
    assert await stack.is_active("A1")


async def test_meanwhile_nobody_else_gets_the_serial_number(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    await pending(stack, tmp_path)
    async with claimant(stack, "other") as asking:
        answer = await asking.enroll(enroll_request("A1"))
        assert isinstance(answer, Rejected)
        assert answer.code == Code.SERIAL_REFUSED
        assert answer.retry_after_s is not None
        assert 0 < answer.retry_after_s <= CONFIRM_WITHIN_S


async def test_it_is_refused_at_connect(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    client = await pending(stack, tmp_path)
    port = stack.ports[Zone.FLEET]
    assert await knock(port, client) is Answer.ADMITTED
    await let_lapse(stack)

    async def is_refused() -> bool:
        return await knock(port, client) is Answer.REFUSED

    await eventually(is_refused)
    assert await is_revoked(stack)


async def test_one_that_stays_connected_is_thrown_off(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    client = await pending(stack, tmp_path)
    async with idle(stack, client) as connection:
        await let_lapse(stack)
        await eventually(lambda: is_revoked(stack))
        await connection.ended()
    assert await knock(stack.ports[Zone.FLEET], client) is Answer.REFUSED


async def test_a_neighbour_stays_connected(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1", "B2"])
    identity = await stack.claim_device("B2", tmp_path / "B2")
    member = Client(
        identity.device_id, identity.chain_file, identity.key_file, stack.home.server_anchors
    )
    async with idle(stack, member) as neighbour, idle(stack, await pending(stack, tmp_path)) as out:
        await let_lapse(stack)
        await out.ended()
        await neighbour.hear(f"muster/v1/device/{identity.device_id}/desired/#")


async def test_asking_again_prolongs_it(stack: Stack) -> None:
    """A device that still asks is alive: only silence loses its certificate."""
    await stack.installation.standard(["A1"])
    key = fresh_key()
    async with claimant(stack, "A1") as asking:
        first = await asking.enroll(enroll_request("A1", key))
        again = await asking.enroll(enroll_request("A1", key))
    assert isinstance(first, EnrollAccepted)
    assert isinstance(again, EnrollAccepted)
    assert first.certificate_chain == again.certificate_chain
    assert first.confirm_by is not None
    assert again.confirm_by is not None
    assert again.confirm_by > first.confirm_by


async def test_a_revocation_survives_a_service_that_was_down(
    plan: Plan, stack: Stack, tmp_path: Path
) -> None:
    await stack.installation.standard(["A1"])
    client = await pending(stack, tmp_path)
    await stack.stop_service()
    await let_lapse(stack)
    await stack.start_service()
    port = stack.ports[Zone.FLEET]

    async def is_refused() -> bool:
        return await is_revoked(stack) and await knock(port, client) is Answer.REFUSED

    await eventually(is_refused)
