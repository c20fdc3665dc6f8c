"""Each zone's CRL comes into force, and comes again when something went wrong on the way."""

from datetime import datetime, timedelta

import pytest
from cryptography import x509

from broker.core.lifecycle import DeviceInput
from broker.core.records import EventKind, Reprovision
from broker.protocol.names import DeviceId
from broker.services.crl import ClaimCrl, FleetCrl
from broker.services.device_acts import Wanted, act_on
from broker.services.lock_out import LockOuts
from tests.support.desk import CONFIRM_WITHIN, Desk, authority
from tests.support.records import a_group


class Place:
    """The CRL file, and the broker that reads it; each can fail."""

    def __init__(self) -> None:
        self.pem = b""
        self.swaps = 0
        self.applied: list[bytes] = []
        self.swap_fails = False
        self.apply_fails = False
        self.disconnect_fails = False
        self.is_damaged = False
        self.is_to_restore = False
        self.ended: list[str] = []

    async def swap(self, pem: bytes, now: datetime) -> None:
        if self.swap_fails:
            raise OSError("the disk is full")
        self.swaps += 1
        self.pem = pem
        self.is_damaged = False

    async def apply_crl(self) -> None:
        if self.apply_fails:
            raise ConnectionError("the broker is down")
        self.applied.append(self.pem)

    async def disconnect(self, name: str) -> int:
        if self.disconnect_fails:
            raise ConnectionError("the broker is down")
        self.ended.append(name)
        return 1

    async def is_intact(self) -> bool:
        return not self.is_damaged

    async def restore(self, now: datetime) -> bool:
        restored, self.is_to_restore = self.is_to_restore, False
        return restored

    @property
    def in_force(self) -> x509.CertificateRevocationList:
        """The operational CRL that the broker has read last; the infrastructure's follows it."""
        return x509.load_pem_x509_crl(self.applied[-1])

    @property
    def serials(self) -> set[str]:
        return {f"{revoked.serial_number:x}" for revoked in self.in_force}

    @property
    def number(self) -> int:
        return self.in_force.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


@pytest.fixture
def place() -> Place:
    return Place()


def fleet_crl(desk: Desk, place: Place) -> FleetCrl:
    lock_outs = LockOuts(desk.registry, place, desk.clock)
    return FleetCrl(desk.registry, authority(), place, place, desk.clock, lock_outs, place)


async def lapsed(desk: Desk, serial: str) -> str:
    """The serial of a certificate that was just revoked."""
    answer = await desk.enroll(serial)
    desk.clock.at += CONFIRM_WITHIN
    await desk.lapsing.revoke_unconfirmed()
    return (await desk.certificates(answer.device_id))[-1].serial


async def test_a_service_that_starts_signs_a_crl_once(desk: Desk, place: Place) -> None:
    crl = fleet_crl(desk, place)
    assert await crl.bring_up_to_date()
    assert not await crl.bring_up_to_date()
    assert place.serials == set()
    assert len(place.applied) == 1
    (event,) = await desk.events()
    assert event.kind is EventKind.CRL_PUBLISHED


async def test_a_revocation_comes_into_force_and_stays(desk: Desk, place: Place) -> None:
    crl = fleet_crl(desk, place)
    await crl.bring_up_to_date()
    first = await lapsed(desk, "A1")
    assert await crl.bring_up_to_date()
    assert place.serials == {first}
    second = await lapsed(desk, "A2")
    assert await crl.bring_up_to_date()
    assert place.serials == {first, second}


async def test_numbers_rise_over_every_life_of_the_service(desk: Desk, place: Place) -> None:
    numbers = []
    for serial in ("A1", "A2"):
        crl = fleet_crl(desk, place)
        await crl.bring_up_to_date()
        numbers.append(place.number)
        await lapsed(desk, serial)
        await crl.bring_up_to_date()
        numbers.append(place.number)
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize("failing", ["swap_fails", "apply_fails"])
async def test_what_failed_is_done_again_until_it_holds(
    desk: Desk, place: Place, failing: str
) -> None:
    crl = fleet_crl(desk, place)
    await crl.bring_up_to_date()
    revoked = await lapsed(desk, "A1")
    setattr(place, failing, True)
    for _ in range(2):
        with pytest.raises(OSError, match=r"disk|broker"):
            await crl.bring_up_to_date()
    assert place.serials == set()
    setattr(place, failing, False)
    assert await crl.bring_up_to_date()
    assert place.serials == {revoked}
    assert not await crl.bring_up_to_date()


async def test_a_revoked_device_s_connection_is_ended_once_and_only_when_the_crl_holds(
    desk: Desk, place: Place
) -> None:
    crl = fleet_crl(desk, place)
    await lapsed(desk, "A1")
    place.apply_fails = True
    with pytest.raises(ConnectionError):
        await crl.bring_up_to_date()
    assert place.ended == []
    place.apply_fails = False
    place.disconnect_fails = True
    with pytest.raises(ConnectionError):
        await crl.bring_up_to_date()
    place.disconnect_fails = False
    for _ in range(3):
        await crl.bring_up_to_date()
    assert place.ended == ["lamp-A1"]


async def test_a_file_that_somebody_changed_is_signed_anew(desk: Desk, place: Place) -> None:
    crl = fleet_crl(desk, place)
    revoked = await lapsed(desk, "A1")
    await crl.bring_up_to_date()
    place.is_damaged = True
    place.apply_fails = True
    with pytest.raises(ConnectionError):
        await crl.bring_up_to_date()
    place.apply_fails = False
    assert await crl.bring_up_to_date()
    assert place.serials == {revoked}
    assert not await crl.bring_up_to_date()
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.CRL_REPAIRED) == 1


async def test_while_no_crl_can_come_into_force_the_connection_is_ended_at_each_try(
    desk: Desk, place: Place
) -> None:
    crl = fleet_crl(desk, place)
    await crl.bring_up_to_date()
    name = DeviceId((await desk.enroll("A1")).device_id)
    await desk.registry.write(
        lambda tx: act_on(tx, name, "1", Wanted(DeviceInput.REVOKE), desk.clock.now())
    )
    place.apply_fails = True
    for tries in (1, 2, 3):
        with pytest.raises(ConnectionError):
            await crl.bring_up_to_date()
        assert place.ended == [name] * tries
    place.apply_fails = False
    assert await crl.bring_up_to_date()
    assert len(place.serials) == 1


async def test_when_the_infrastructure_s_crl_was_put_back_both_brokers_read_it(
    desk: Desk, place: Place
) -> None:
    crl, claims = fleet_crl(desk, place), ClaimCrl(desk.registry, place)
    await crl.bring_up_to_date()
    await claims.bring_up_to_date()
    place.is_to_restore = True
    assert await crl.bring_up_to_date()
    assert await claims.bring_up_to_date()
    assert not await crl.bring_up_to_date()
    assert (await desk.events())[-1].kind is EventKind.CRL_REPAIRED


async def test_a_clock_that_is_set_back_does_not_lock_the_fleet_out(
    desk: Desk, place: Place
) -> None:
    crl = fleet_crl(desk, place)
    await crl.bring_up_to_date()
    desk.clock.at -= timedelta(hours=3)
    await crl.bring_up_to_date()
    assert place.in_force.last_update_utc <= desk.clock.now()


async def test_a_member_by_a_newer_certificate_is_not_disconnected(
    desk: Desk, place: Place
) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    await desk.join("A1")
    newer = await desk.join("A1")
    await fleet_crl(desk, place).bring_up_to_date()
    assert len(place.serials) == 1
    assert newer.serial not in place.serials
    assert place.ended == []


async def test_a_revocation_that_a_killed_service_left_is_in_the_next_one_s_first_crl(
    desk: Desk, place: Place
) -> None:
    await fleet_crl(desk, place).bring_up_to_date()
    revoked = await lapsed(desk, "A1")
    await fleet_crl(desk, place).bring_up_to_date()
    assert place.serials == {revoked}


async def test_it_is_signed_anew_each_day_and_long_before_it_expires(
    desk: Desk, place: Place
) -> None:
    crl = fleet_crl(desk, place)
    await crl.bring_up_to_date()
    desk.clock.at += timedelta(hours=23)
    assert not await crl.bring_up_to_date()
    desk.clock.at += timedelta(hours=2)
    assert await crl.bring_up_to_date()
    expires = place.in_force.next_update_utc
    assert expires is not None
    assert expires - desk.clock.at > timedelta(days=2)


async def test_what_has_expired_leaves_the_crl(desk: Desk, place: Place) -> None:
    crl = fleet_crl(desk, place)
    await lapsed(desk, "A1")
    await crl.bring_up_to_date()
    assert len(place.serials) == 1
    desk.clock.at += timedelta(days=90)
    await crl.bring_up_to_date()
    assert place.serials == set()


async def test_the_claim_zone_s_crl_is_applied_when_the_operator_has_signed_one(
    desk: Desk, place: Place
) -> None:
    crl = ClaimCrl(desk.registry, place)
    assert await crl.bring_up_to_date()
    assert not await crl.bring_up_to_date()
    await desk.write(("raise_counter", ClaimCrl.COUNTER))
    place.apply_fails = True
    with pytest.raises(ConnectionError):
        await crl.bring_up_to_date()
    place.apply_fails = False
    assert await crl.bring_up_to_date()
    assert len(place.applied) == 2
    assert place.swaps == 0
