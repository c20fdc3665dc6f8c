"""Devices and their operational certificates."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, Device, RevocationReason, has_expired
from broker.ports.authorities import Revocation
from broker.ports.registry import DeviceFilter, ReadTransaction, RegistryConflict, WriteTransaction
from broker.protocol.names import CertificateSerial, DeviceId, GroupName, SerialNumber
from tests.support.records import (
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)
from tests.support.registries import add_batch, certificate_number, device_number

LAMP = a_device().id
BULBS = GroupName("bulbs")


async def add_devices(registry: SqlRegistry, *devices: Device) -> None:
    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        tx.save_group(a_group(name=BULBS, claim_certificates=frozenset()))
        for device in devices:
            tx.save_device(device)

    await registry.write(work)


async def add_certificates(registry: SqlRegistry, *certificates: Certificate) -> None:
    def work(tx: WriteTransaction) -> None:
        for certificate in certificates:
            tx.save_certificate(certificate)

    await registry.write(work)


def count_expired(view: ReadTransaction, now: datetime) -> int:
    return view.count_expired(now)


def revoked(certificate: Certificate) -> Certificate:
    return replace(
        certificate,
        state=CertificateState.REVOKED,
        revoked_at=NOW,
        revoked_for=RevocationReason.OPERATOR,
    )


async def test_a_device_is_kept_as_it_is(registry: SqlRegistry) -> None:
    device = a_device(
        state=DeviceState.ACTIVE,
        activated_at=NOW,
        parameters={"ort": "Küche", "quote": "\"'%s :x", "line": "a\nb"},
    )
    await add_devices(registry, device)
    assert await registry.read(lambda tx: tx.device(LAMP)) == device
    assert await registry.read(lambda tx: tx.device(DeviceId("nobody"))) is None


async def test_a_device_is_replaced_whole(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device(activated_at=NOW, parameters={"a": "b"}))
    changed = a_device(state=DeviceState.RETIRED, group=BULBS, serial=SerialNumber("Z9"))
    await registry.write(lambda tx: tx.save_device(changed))
    assert await registry.read(lambda tx: tx.device(LAMP)) == changed
    newcomer = a_device(id=DeviceId("lamp-new"))
    await registry.write(lambda tx: tx.save_device(newcomer))
    assert await registry.read(lambda tx: tx.device(newcomer.id)) == newcomer


async def test_a_serial_number_has_one_device_in_its_group(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    with pytest.raises(RegistryConflict, match="A1 belongs to the device lamp-A1"):
        await registry.write(lambda tx: tx.save_device(a_device(id=DeviceId("thief"))))
    elsewhere = a_device(id=DeviceId("bulb-A1"), group=BULBS)
    await registry.write(lambda tx: tx.save_device(elsewhere))
    assert await registry.read(lambda tx: tx.devices(DeviceFilter())) == [elsewhere, a_device()]


async def test_a_serial_number_taken_in_the_same_work_is_taken(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_device(a_device())
        with pytest.raises(RegistryConflict):
            tx.save_device(a_device(id=DeviceId("thief")))

    await add_devices(registry)
    await registry.write(work)
    assert await registry.read(lambda tx: tx.devices(DeviceFilter())) == [a_device()]


async def test_a_serial_number_given_up_in_the_same_work_is_free(registry: SqlRegistry) -> None:
    moved = a_device(serial=SerialNumber("A2"))
    heir = a_device(id=DeviceId("heir"))

    def work(tx: WriteTransaction) -> None:
        tx.save_device(a_device())
        tx.save_device(moved)
        tx.save_device(heir)

    await add_devices(registry)
    await registry.write(work)
    assert await registry.read(lambda tx: tx.devices(DeviceFilter())) == [heir, moved]


async def test_a_serial_number_given_up_in_a_later_work_is_free(registry: SqlRegistry) -> None:
    moved = a_device(serial=SerialNumber("A2"))

    def work(tx: WriteTransaction) -> None:
        tx.save_device(moved)
        context = tx.claim_context(
            a_claim_certificate().name, SerialNumber("A1"), a_fingerprint("k")
        )
        assert context.device is None

    await add_devices(registry, a_device())
    await registry.write(work)


async def test_devices_are_listed_by_id_and_in_pages(registry: SqlRegistry) -> None:
    await add_devices(registry, *(device_number(n) for n in (3, 1, 2)))
    page = await registry.read(lambda tx: tx.devices(DeviceFilter(limit=2)))
    assert page == [device_number(1), device_number(2)]
    rest = await registry.read(lambda tx: tx.devices(DeviceFilter(after=page[-1].id)))
    assert rest == [device_number(3)]


async def test_devices_are_listed_by_state_and_group(registry: SqlRegistry) -> None:
    active = device_number(1, state=DeviceState.ACTIVE)
    bulb = device_number(2, state=DeviceState.ACTIVE, group=BULBS)
    await add_devices(registry, active, bulb, device_number(3))
    by_state = DeviceFilter(state=DeviceState.ACTIVE)
    assert await registry.read(lambda tx: tx.devices(by_state)) == [active, bulb]
    by_both = DeviceFilter(state=DeviceState.ACTIVE, group=BULBS)
    assert await registry.read(lambda tx: tx.devices(by_both)) == [bulb]
    counts = await registry.read(lambda tx: tx.count_devices())
    assert counts == {
        **dict.fromkeys(DeviceState, 0),
        DeviceState.ACTIVE: 2,
        DeviceState.PENDING: 1,
    }


async def test_a_certificate_is_kept_as_it_is(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    bare = a_certificate(claim_name=None)
    full = revoked(
        certificate_number(
            7,
            device_id=LAMP,
            not_before=NOW - timedelta(microseconds=1),
            confirmed_at=NOW + timedelta(microseconds=999_999),
            pem="-----BEGIN CERTIFICATE-----\n",
            rotation_order=2**40,
            grace_until=NOW + timedelta(microseconds=1),
            recovery_approved_until=NOW - timedelta(microseconds=1),
        )
    )
    await add_certificates(registry, bare, full)
    assert await registry.read(lambda tx: tx.certificates_of([LAMP])) == [bare, full]


async def test_a_certificate_needs_its_device(registry: SqlRegistry) -> None:
    await add_devices(registry)
    with pytest.raises(RegistryConflict):
        await add_certificates(registry, a_certificate())


async def test_a_replaced_certificate_keeps_its_place(registry: SqlRegistry) -> None:
    first, second = (certificate_number(n, device_id=LAMP) for n in (1, 2))
    await add_devices(registry, a_device())
    await add_certificates(registry, first, second)
    confirmed = replace(first, state=CertificateState.ACTIVE, confirmed_at=NOW)
    await add_certificates(registry, confirmed)
    assert await registry.read(lambda tx: tx.certificates_of([LAMP])) == [confirmed, second]


async def test_a_certificate_is_found_by_its_fingerprint(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    await add_certificates(registry, a_certificate())
    wanted = a_certificate().certificate_sha256
    assert await registry.read(lambda tx: tx.certificate_by_fingerprint(wanted)) == a_certificate()
    stranger = a_fingerprint("stranger")
    assert await registry.read(lambda tx: tx.certificate_by_fingerprint(stranger)) is None


async def test_a_certificate_is_found_by_its_serial_number(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    await add_certificates(registry, a_certificate(serial=CertificateSerial("d1")))
    found = await registry.read(lambda tx: tx.certificate_by_serial(CertificateSerial("d1")))
    assert found == a_certificate()
    assert await registry.read(lambda tx: tx.certificate_by_serial(CertificateSerial("d2"))) is None


async def test_two_certificates_never_share_a_fingerprint(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    twin = a_certificate(serial=CertificateSerial("d2"))
    with pytest.raises(RegistryConflict):
        await add_certificates(registry, a_certificate(), twin)
    assert await registry.read(lambda tx: tx.certificates_of([LAMP])) == []


async def test_certificates_of_many_devices_come_oldest_first(registry: SqlRegistry) -> None:
    count = 1200
    await add_devices(registry, *(device_number(n) for n in range(count)))
    certificates = [certificate_number(n) for n in reversed(range(count))]
    await add_certificates(registry, *certificates)
    ids = [device_number(n).id for n in range(count)]
    found = await registry.read(lambda tx: tx.certificates_of([*ids, ids[0]]))
    assert found == certificates
    assert await registry.read(lambda tx: tx.certificates_of([])) == []


async def test_superseded_certificates_are_found_when_their_grace_is_over(
    registry: SqlRegistry,
) -> None:
    over = [
        certificate_number(
            n,
            device_id=LAMP,
            state=CertificateState.SUPERSEDED,
            grace_until=NOW + timedelta(seconds=5 - n),
        )
        for n in range(5)
    ]
    out = revoked(certificate_number(8, device_id=LAMP, grace_until=NOW))
    await add_devices(registry, a_device())
    await add_certificates(registry, *over, out)

    async def found(after: int, limit: int = 10) -> list[Certificate]:
        moment = NOW + timedelta(seconds=after)
        return await registry.read(lambda tx: tx.superseded_before(moment, limit))

    assert await found(0) == []
    assert await found(3) == [over[4], over[3], over[2]]
    assert await found(9, limit=2) == [over[4], over[3]]


async def test_the_newest_certificate_of_a_key_is_found_whoever_s_it_is(
    registry: SqlRegistry,
) -> None:
    key = a_fingerprint("shared")
    first, second = (certificate_number(n, device_id=LAMP, key_sha256=key) for n in (1, 2))
    await add_devices(registry, a_device())
    await add_certificates(registry, first, second)
    assert await registry.read(lambda tx: tx.newest_of_key(key)) == second
    assert await registry.read(lambda tx: tx.newest_of_key(a_fingerprint("none"))) is None


async def test_unproven_certificates_are_found_when_their_time_is_up(registry: SqlRegistry) -> None:
    due = [
        certificate_number(n, device_id=LAMP, confirm_by=NOW + timedelta(seconds=5 - n))
        for n in range(5)
    ]
    proven = certificate_number(9, device_id=LAMP, confirm_by=NOW, state=CertificateState.ACTIVE)
    await add_devices(registry, a_device())
    await add_certificates(registry, *due, proven)
    moment = NOW + timedelta(seconds=3)
    found = await registry.read(lambda tx: tx.unconfirmed_before(moment, 10))
    assert found == [due[4], due[3], due[2]]
    assert await registry.read(lambda tx: tx.unconfirmed_before(moment, 1)) == [due[4]]


async def test_revocations_are_of_revoked_certificates_that_could_still_be_used(
    registry: SqlRegistry,
) -> None:
    live = certificate_number(1, device_id=LAMP)
    gone = revoked(certificate_number(2, device_id=LAMP))
    expired = revoked(certificate_number(3, device_id=LAMP, not_after=NOW))
    await add_devices(registry, a_device())
    await add_certificates(registry, live, gone, expired)
    wanted = [Revocation(gone.serial, NOW, RevocationReason.OPERATOR, LAMP)]
    assert await registry.read(lambda tx: tx.revocations(NOW)) == wanted
    assert await registry.read(lambda tx: tx.revocations(gone.not_after)) == []


async def test_a_revocation_says_when_and_why(registry: SqlRegistry) -> None:
    await add_devices(registry, a_device())
    with pytest.raises(RegistryConflict):
        await add_certificates(registry, a_certificate(state=CertificateState.REVOKED))


async def test_a_work_sees_its_own_certificates_by_every_way(registry: SqlRegistry) -> None:
    wanted = a_certificate()

    def work(tx: WriteTransaction) -> None:
        tx.save_device(a_device())
        tx.save_certificate(replace(wanted, pem="draft"))
        assert tx.certificate_by_fingerprint(wanted.certificate_sha256) is not None
        tx.save_certificate(wanted)
        assert tx.certificates_of([LAMP]) == [wanted]
        assert tx.device(LAMP) == a_device()
        assert tx.unconfirmed_before(wanted.confirm_by, 5) == [wanted]
        tx.save_certificate(revoked(wanted))
        assert [line.serial for line in tx.revocations(NOW)] == [wanted.serial]

    await add_devices(registry)
    await registry.write(work)


@pytest.mark.parametrize("state", [DeviceState.ACTIVE, DeviceState.ROTATING, DeviceState.SUSPENDED])
@pytest.mark.parametrize(
    "other",
    [
        None,
        {"state": CertificateState.ISSUED},
        {
            "state": CertificateState.REVOKED,
            "revoked_at": NOW,
            "revoked_for": RevocationReason.OPERATOR,
        },
        {"state": CertificateState.ISSUED, "held_at": NOW},
        {"state": CertificateState.ISSUED, "not_after": NOW},
        {"state": CertificateState.SUPERSEDED, "grace_until": NOW},
        {"state": CertificateState.SUPERSEDED, "grace_until": NOW + timedelta(seconds=1)},
    ],
)
async def test_who_has_expired_is_counted_as_it_is_shown(
    registry: SqlRegistry, state: DeviceState, other: dict[str, Any] | None
) -> None:
    device = a_device(state=state)
    held = [a_certificate(state=CertificateState.ACTIVE, not_after=NOW)]
    if other is not None:
        more = {"serial": CertificateSerial("d2"), "key_sha256": a_fingerprint("other key")}
        sha256 = a_fingerprint("other")
        held.append(a_certificate(certificate_sha256=sha256, **more, **other))
    await add_devices(registry, device)
    await add_certificates(registry, *held)
    assert not has_expired(device, held, NOW - timedelta(seconds=1))
    for now in (NOW, NOW - timedelta(seconds=1)):
        counted = await registry.read(partial(count_expired, now=now))
        assert counted == int(has_expired(device, held, now))
    is_kept_out = other is None or not a_certificate(**other).is_live(NOW)
    assert has_expired(device, held, NOW) is (is_kept_out and state is not DeviceState.SUSPENDED)
