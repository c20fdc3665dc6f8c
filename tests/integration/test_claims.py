"""From a claim bundle to a member of the fleet, through brokers, service and registry."""

import asyncio
from pathlib import Path

import pytest

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind
from broker.protocol.codes import Code
from broker.protocol.messages import EnrollAccepted, Rejected
from device_client.errors import RequestRejected
from tests.support.claimant import claimant, enroll_request, member
from tests.support.csrs import fresh_key
from tests.support.stack import Plan, Stack


@pytest.fixture
def plan(on_both_databases: Plan) -> Plan:
    return on_both_databases


async def test_a_device_becomes_a_member(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    identity = await stack.claim_device("A1", tmp_path / "A1")
    device = await stack.device("A1")
    (certificate,) = await stack.certificates()
    assert (device.id, device.state) == ("lamp-A1", DeviceState.ACTIVE)
    assert (identity.device_id, identity.confirmed_at is not None) == ("lamp-A1", True)
    assert certificate.state is CertificateState.ACTIVE
    assert certificate.certificate_sha256 == identity.certificate_sha256
    assert certificate.key_sha256 == identity.key_sha256
    kinds = [
        e.kind for e in await stack.events_of(EventKind.CLAIM_ACCEPTED, EventKind.DEVICE_ACTIVE)
    ]
    assert kinds == [EventKind.CLAIM_ACCEPTED, EventKind.DEVICE_ACTIVE]
    assert (await stack.installation.group()).devices == 1
    assert (await stack.installation.claim_certificate()).claims == 1


async def test_a_member_that_asks_again_stays_as_it_is(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    first = await stack.claim_device("A1", tmp_path / "A1")
    again = await stack.claim_device("A1", tmp_path / "A1")
    assert again == first
    assert len(await stack.certificates()) == 1


async def test_the_same_key_gets_the_same_certificate(stack: Stack) -> None:
    await stack.installation.standard(["A1"])
    key = fresh_key()
    async with claimant(stack, "first") as one, claimant(stack, "second") as two:
        answers = [await asking.enroll(enroll_request("A1", key)) for asking in (one, two, one)]
    chains = {a.certificate_chain for a in answers if isinstance(a, EnrollAccepted)}
    assert len(chains) == 1
    assert [a for a in answers if isinstance(a, Rejected)] == []
    assert len(await stack.certificates()) == 1
    assert (await stack.installation.claim_certificate()).claims == 1
    assert len(await stack.events_of(EventKind.CLAIM_REPEATED)) == 2


async def test_of_a_hundred_claims_at_once_one_wins(stack: Stack, tmp_path: Path) -> None:
    """A copied serial number: the others are refused, and a neighbour notices nothing."""
    await stack.installation.standard(["A1", "B2"])

    async def claim(number: int) -> EnrollAccepted | Rejected:
        async with claimant(stack, f"copy-{number}") as asking:
            return await asking.enroll(enroll_request("A1"))

    async with asyncio.TaskGroup() as tasks:
        neighbour = tasks.create_task(stack.claim_device("B2", tmp_path / "B2"))
        claims = [tasks.create_task(claim(number)) for number in range(100)]
    answers = [task.result() for task in claims]
    won = [a for a in answers if isinstance(a, EnrollAccepted)]
    lost = [a for a in answers if isinstance(a, Rejected)]
    assert (len(won), len(lost)) == (1, 99)
    assert {a.code for a in lost} == {Code.SERIAL_REFUSED}
    assert all(a.retry_after_s is not None for a in lost)
    (certificate,) = await stack.certificates_of("A1")
    assert won[0].certificate_chain.startswith(certificate.pem)
    refusals = await stack.events_of(EventKind.CLAIM_REFUSED)
    assert [e.code for e in refusals] == [Code.SERIAL_TAKEN] * 99
    assert neighbour.result().device_id == "lamp-B2"
    assert (await stack.installation.group()).devices == 2


async def test_a_batch_claims_at_once(stack: Stack, tmp_path: Path) -> None:
    serials = [f"S{number}" for number in range(20)]
    await stack.installation.standard(serials)
    async with asyncio.TaskGroup() as tasks:
        for serial in serials:
            tasks.create_task(stack.claim_device(serial, tmp_path / serial))
    devices, certificates = await stack.devices(), await stack.certificates()
    assert {d.state for d in devices} == {DeviceState.ACTIVE}
    assert len(devices) == len(certificates) == len({c.serial for c in certificates}) == 20


async def test_a_serial_number_that_nobody_listed(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.standard(["A1"])
    async with claimant(stack, "stranger") as asking:
        answer = await asking.enroll(enroll_request("Z9"))
    assert isinstance(answer, Rejected)
    assert answer.code == Code.SERIAL_REFUSED
    (event,) = await stack.events_of(EventKind.CLAIM_REFUSED)
    assert (event.code, event.serial_number) == (Code.SERIAL_UNKNOWN, "Z9")
    assert await stack.devices() == []


async def test_an_impostor_can_not_confirm_for_another(stack: Stack, tmp_path: Path) -> None:
    """B2's connection names A1's certificate: a certificate is proven by its own device only."""
    await stack.installation.standard(["A1", "B2"])
    async with claimant(stack, "A1") as asking:
        assert isinstance(await asking.enroll(enroll_request("A1")), EnrollAccepted)
    (unproven,) = await stack.certificates_of("A1")
    identity = await stack.claim_device("B2", tmp_path / "B2")
    async with member(stack, identity) as other:
        answer = await other.confirm(unproven.certificate_sha256)
    assert isinstance(answer, Rejected)
    assert answer.code == Code.CERTIFICATE_UNKNOWN
    assert (await stack.device("A1")).state is DeviceState.PENDING


async def test_a_refused_device_says_why(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.add_claim_certificate()
    with pytest.raises(RequestRejected) as refused:
        await stack.claim_device("A1", tmp_path / "A1", wait=False)
    assert refused.value.rejected.code == Code.CLAIM_WITHOUT_GROUP
    assert "group apply" in refused.value.remedy
