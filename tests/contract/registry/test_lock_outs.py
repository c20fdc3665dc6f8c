"""What a broker owes to acts on devices, and certificates that a suspension holds."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.lifecycle import CertificateState, DeviceInput
from broker.core.records import LockOut, RevocationReason
from broker.ports.authorities import Revocation
from broker.ports.registry import DeviceFilter, RegistryError, WriteTransaction
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId
from tests.support.records import NOW
from tests.support.registries import add_batch, certificate_number, device_number

LAMP = DeviceId("lamp-1")


def a_lock_out(lock_out_id: str = "o1", number: int = 1) -> LockOut:
    return LockOut(
        id=lock_out_id,
        device_id=device_number(number).id,
        act=DeviceInput.REVOKE,
        serials=(CertificateSerial("1"), CertificateSerial("a2")),
        requested_at=NOW,
        crl_wanted=7,
        reason="stolen",
    )


async def add(registry: SqlRegistry, *lock_outs: LockOut) -> None:
    def work(tx: WriteTransaction) -> None:
        for each in lock_outs:
            tx.save_lock_out(each)

    await registry.write(work)


@pytest.fixture
async def members(registry: SqlRegistry) -> SqlRegistry:
    """A registry that knows `lamp-1` to `lamp-3`."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in (1, 2, 3):
            tx.save_device(device_number(number))
            tx.save_certificate(certificate_number(number))

    await registry.write(work)
    return registry


async def test_it_is_kept_as_it_is(members: SqlRegistry) -> None:
    bare = LockOut("o2", LAMP, DeviceInput.RESUME, (), NOW, 0)
    later = NOW + timedelta(microseconds=1)
    full = replace(a_lock_out(), crl_at=later, disconnected_at=later, ended_at=later)
    await add(members, full, bare)
    assert await members.read(lambda tx: tx.lock_out("o1")) == full
    assert await members.read(lambda tx: tx.lock_outs_of(LAMP)) == [full, bare]
    assert await members.read(lambda tx: tx.lock_out("o9")) is None


async def test_saving_again_replaces_it_and_keeps_its_place(members: SqlRegistry) -> None:
    first, second = a_lock_out("o1"), a_lock_out("o2")
    await add(members, first, second)
    done = replace(first, crl_at=NOW)
    await add(members, done)
    assert await members.read(lambda tx: tx.lock_outs_of(LAMP)) == [done, second]


async def test_what_waits_and_what_is_open_come_oldest_first(members: SqlRegistry) -> None:
    waits = a_lock_out("o1", 1)
    watched = replace(a_lock_out("o2", 2), crl_at=NOW, disconnected_at=NOW)
    overtaken = replace(a_lock_out("o3", 3), ended_at=NOW)
    also = a_lock_out("o4", 3)
    await add(members, waits, watched, overtaken, also)
    assert await members.read(lambda tx: tx.waiting_lock_outs(10)) == [waits, also]
    assert await members.read(lambda tx: tx.waiting_lock_outs(1)) == [waits]
    assert await members.read(lambda tx: tx.open_lock_outs(10)) == [waits, watched, also]
    assert await members.read(lambda tx: tx.open_lock_outs(2)) == [waits, watched]


async def test_an_operator_s_act_comes_before_all_that_can_wait(members: SqlRegistry) -> None:
    passing = [
        replace(a_lock_out(f"o{number}", number), act=act)
        for number, act in (
            (1, DeviceInput.LAPSE),
            (2, DeviceInput.CONFIRM),
            (3, DeviceInput.LAPSE),
        )
    ]
    urgent = [
        replace(a_lock_out(f"u{number}", number), act=act)
        for number, act in (
            (1, DeviceInput.REVOKE),
            (2, DeviceInput.RESUME),
            (3, DeviceInput.RETIRE),
        )
    ]
    await add(members, *passing, *urgent)
    assert await members.read(lambda tx: tx.waiting_lock_outs(9)) == [*urgent, *passing]
    assert await members.read(lambda tx: tx.waiting_lock_outs(4)) == [*urgent, passing[0]]


async def test_a_transaction_sees_what_it_has_saved(members: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_lock_out(a_lock_out())
        assert tx.lock_out("o1") == a_lock_out()
        assert tx.lock_outs_of(LAMP) == [a_lock_out()]
        assert tx.waiting_lock_outs(10) == [a_lock_out()]

    await members.write(work)


async def test_it_concerns_a_device_that_exists(members: SqlRegistry) -> None:
    with pytest.raises(RegistryError):
        await add(members, replace(a_lock_out(), device_id=DeviceId("nobody")))
    assert await members.read(lambda tx: tx.open_lock_outs(10)) == []


async def test_held_certificates_are_on_the_crl_until_they_are_released(
    members: SqlRegistry,
) -> None:
    held = replace(certificate_number(1), held_at=NOW)
    await members.write(lambda tx: tx.save_certificate(held))
    assert await members.read(lambda tx: tx.certificates_of([LAMP])) == [held]
    line = Revocation(held.serial, NOW, RevocationReason.SUSPENDED, LAMP)
    assert await members.read(lambda tx: tx.revocations(NOW)) == [line]
    assert await members.read(lambda tx: tx.revocations(held.not_after)) == []
    await members.write(lambda tx: tx.save_certificate(replace(held, held_at=None)))
    assert await members.read(lambda tx: tx.revocations(NOW)) == []


async def test_what_was_held_and_then_revoked_is_one_line(members: SqlRegistry) -> None:
    both = replace(
        certificate_number(1),
        held_at=NOW,
        state=CertificateState.REVOKED,
        revoked_at=NOW,
        revoked_for=RevocationReason.OPERATOR,
    )
    await members.write(lambda tx: tx.save_certificate(both))
    line = Revocation(both.serial, NOW, RevocationReason.OPERATOR, LAMP)
    assert await members.read(lambda tx: tx.revocations(NOW)) == [line]


async def test_devices_are_found_by_the_claim_certificate_that_let_them_in(
    members: SqlRegistry,
) -> None:
    lapsed = replace(
        certificate_number(2),
        state=CertificateState.REVOKED,
        revoked_at=NOW,
        revoked_for=RevocationReason.NEVER_CONFIRMED,
    )
    renewed = replace(certificate_number(3), claim_name=None)
    await members.write(lambda tx: tx.save_certificate(lapsed))
    await members.write(lambda tx: tx.save_certificate(renewed))
    wanted = DeviceFilter(claim_name=ClaimName("batch-7"))
    assert [d.id for d in await members.read(lambda tx: tx.devices(wanted))] == [LAMP]
    nobody = DeviceFilter(claim_name=ClaimName("batch-8"))
    assert await members.read(lambda tx: tx.devices(nobody)) == []
