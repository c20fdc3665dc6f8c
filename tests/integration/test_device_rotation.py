"""The device keeps its place in the fleet: renewal, orders, recovery, with a scripted service."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollAccepted, RotationOrder
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from device_client import status
from device_client.identity import Identity, Origin
from device_client.status_note import Activity
from tests.support.device_agents import QUICK, device
from tests.support.fake_service import SILENCE, FakeFleet, fake_fleet, key_of
from tests.support.running_agents import running
from tests.support.waiting import eventually

ORDERS = desired_topic(DeviceId("device-A1"), Desired.ROTATION)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


async def member(fleet: FakeFleet, state: Path) -> Identity:
    with device(state, fleet.bundle()) as (agent, _):
        return await agent.claim(60)


def order(version: int) -> RotationOrder:
    return RotationOrder(version=version, renew_by=datetime.now(UTC))


async def test_a_certificate_past_two_thirds_is_renewed(fleet: FakeFleet, tmp_path: Path) -> None:
    fleet.service.age, fleet.service.lifetime = timedelta(seconds=20), timedelta(seconds=15)
    old = await member(fleet, tmp_path / "state")
    fleet.service.lifetime = timedelta(hours=1)
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
        await eventually(lambda: not old.directory.exists())
        new = one.identity()
    (request,) = fleet.service.renews
    assert request.order is None
    assert new.device_id == old.device_id
    assert new.origin is Origin.RENEWAL
    assert len(fleet.service.enrolls) == 1


async def test_an_order_is_followed_once(fleet: FakeFleet, tmp_path: Path) -> None:
    state = tmp_path / "state"
    async with running(state, fleet) as one:
        await one.is_online()
        first = one.identity()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
        confirmed = len(fleet.service.confirms)
        await fleet.fleet.control.disconnect(first.device_id)
        await eventually(lambda: len(fleet.service.confirms) > confirmed)
        await one.is_online()
        await fleet.service.retain(ORDERS, order(2))
        await one.proves(lambda new: new.order == 2)
    assert [request.order for request in fleet.service.renews] == [1, 2]


async def test_an_order_that_was_taken_back_is_not_followed(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    later = RotationOrder(version=1, renew_by=datetime.now(UTC) + timedelta(hours=9))
    fleet.service.lifetime = timedelta(hours=100)
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        by_age = one.renewal_due()
        await fleet.service.retain(ORDERS, later)
        await eventually(lambda: one.renewal_due() < later.renew_by)
        await fleet.service.retain(ORDERS, None)
        await eventually(lambda: one.renewal_due() == by_age)
    assert fleet.service.renews == []


async def test_an_unanswered_renewal_is_asked_again_with_the_same_key(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    timing = dataclasses.replace(QUICK, answers_s=(1.0,))
    fleet.service.renew_script.extend([SILENCE, Refused(Code.BUSY)])
    async with running(tmp_path / "state", fleet, timing) as one:
        await one.is_online()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
    assert len(fleet.service.renews) >= 3
    assert len({key_of(request.csr) for request in fleet.service.renews}) == 1


@pytest.mark.parametrize("code", [Code.KEY_NOT_NEW, Code.KEY_RETIRED, Code.KEY_IN_USE])
async def test_a_key_that_is_of_no_use_is_replaced(
    fleet: FakeFleet, tmp_path: Path, code: Code
) -> None:
    fleet.service.renew_script.append(Refused(code))
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
    first, second = fleet.service.renews
    assert key_of(first.csr) != key_of(second.csr)


async def test_somebody_elses_certificate_is_not_taken(fleet: FakeFleet, tmp_path: Path) -> None:
    def rename(answer: EnrollAccepted) -> EnrollAccepted:
        return dataclasses.replace(answer, device_id="somebody-else")

    fleet.service.renew_script.append(rename)
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
        assert one.identity().device_id == "device-A1"


async def test_a_successor_that_the_broker_refuses_is_given_up_for_the_old_one(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """And another is asked for, with another key."""
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        old, confirmed = one.identity(), len(fleet.service.confirms)
        fleet.service.confirm_script.extend([SILENCE] * 100)
        await fleet.service.retain(ORDERS, order(1))
        await eventually(lambda: len(fleet.service.confirms) > confirmed)
        refused = one.store.succession.successor()
        assert refused is not None
        await fleet.revoke(refused.chain_file.read_text(), old.device_id)
        fleet.service.confirm_script.clear()
        await fleet.fleet.control.disconnect(old.device_id)
        await one.proves(lambda new: new.order == 1)
        assert one.identity().key_sha256 not in (old.key_sha256, refused.key_sha256)
    assert len(fleet.service.enrolls) == 1


async def test_a_successor_that_ended_unproven_is_given_up_for_the_old_one(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """The service takes it for no recovery, and the old one works: it never saw it proven."""
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        old, confirmed = one.identity(), len(fleet.service.confirms)
        fleet.service.confirm_script.extend([SILENCE] * 100)
        fleet.service.lifetime = timedelta(seconds=4)
        await fleet.service.retain(ORDERS, order(1))
        await eventually(lambda: len(fleet.service.confirms) > confirmed)
        ended = one.store.succession.successor()
        assert ended is not None
        await eventually(lambda: datetime.now(UTC) > ended.not_after)
        fleet.service.recover_script.extend([Refused(Code.RECOVERY_REFUSED)] * 100)
        fleet.service.lifetime = timedelta(hours=1)
        await fleet.fleet.control.disconnect(old.device_id)
        fleet.service.confirm_script.clear()
        await one.proves(lambda new: new.order == 1)
        assert one.identity().key_sha256 not in (old.key_sha256, ended.key_sha256)
        assert one.identity().origin is Origin.RENEWAL
    assert len(fleet.service.enrolls) == 1


async def test_a_successor_that_the_service_disowns_is_given_up(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        fleet.service.confirm_script.append(Refused(Code.CERTIFICATE_UNKNOWN))
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
    first, second = fleet.service.renews
    assert key_of(first.csr) != key_of(second.csr)
    assert len(fleet.service.enrolls) == 1


async def test_the_old_one_goes_on_while_the_successor_does_not_work(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """The new fleet broker isn't there yet: the device doesn't leave the one that is."""

    def elsewhere(answer: EnrollAccepted) -> EnrollAccepted:
        return dataclasses.replace(answer, fleet=dataclasses.replace(answer.fleet, port=1))

    fleet.service.renew_script.append(elsewhere)
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        old, confirmed = one.identity(), len(fleet.service.confirms)
        await fleet.service.retain(ORDERS, order(1))
        await eventually(lambda: len(fleet.service.confirms) >= confirmed + 3)
        assert one.identity() == old
        assert one.store.succession.successor() is not None
        kept = {one.certificate_sha256 for one in fleet.service.confirms[confirmed:]}
        assert kept == {old.certificate_sha256}


async def test_a_superseded_certificate_renews_at_once(fleet: FakeFleet, tmp_path: Path) -> None:
    """As after a restored disk: the newer one is lost, and this one is good for a while."""
    old = await member(fleet, tmp_path / "state")
    fleet.service.confirm_script.append(Refused(Code.CERTIFICATE_SUPERSEDED))
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
    assert len(fleet.service.renews) == 1


async def test_an_expired_certificate_is_recovered(fleet: FakeFleet, tmp_path: Path) -> None:
    old = await expired_member(fleet, tmp_path / "state")
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
        new = one.identity()
    assert new.device_id == old.device_id
    assert new.origin is Origin.RECOVERY
    assert len(fleet.service.recovers) == 1
    assert len(fleet.service.enrolls) == 1


async def expired_member(fleet: FakeFleet, state: Path) -> Identity:
    fleet.service.lifetime = timedelta(seconds=3)
    old = await member(fleet, state)
    fleet.service.lifetime = timedelta(hours=1)
    await eventually(lambda: datetime.now(UTC) > old.not_after)
    return old


async def test_a_connection_that_outlived_its_certificate_leads_to_recovery(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.renew_script.append(Refused(Code.CERTIFICATE_EXPIRED))
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        old = one.identity()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.origin is Origin.RECOVERY)
        assert one.identity().device_id == old.device_id
    assert len(fleet.service.recovers) == 1
    assert len(fleet.service.enrolls) == 1


async def test_what_expired_before_it_was_confirmed_once_more_is_recovered(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """And not thrown away: its key is what the device comes back by."""
    await member(fleet, tmp_path / "state")
    fleet.service.confirm_script.append(Refused(Code.CERTIFICATE_EXPIRED))
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.origin is Origin.RECOVERY)
    assert len(fleet.service.enrolls) == 1


async def test_an_unanswered_recovery_is_asked_again_with_the_same_key(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    old = await expired_member(fleet, tmp_path / "state")
    timing = dataclasses.replace(QUICK, answers_s=(1.0,))
    fleet.service.recover_script.append(SILENCE)
    async with running(tmp_path / "state", fleet, timing) as one:
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
    assert len(fleet.service.recovers) >= 2
    assert len({key_of(request.csr) for request in fleet.service.recovers}) == 1


async def test_a_refused_recovery_waits_for_the_operator_and_says_so(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    old = await expired_member(fleet, tmp_path / "state")
    fleet.service.recover_script.extend([Refused(Code.RECOVERY_REFUSED)] * 3)
    fleet.service.enroll_script.extend([Refused(Code.SERIAL_REFUSED)] * 3)
    async with running(tmp_path / "state", fleet) as one:
        await eventually(lambda: one.error() == "recovery_refused")
        report = status.report(tmp_path / "state")
        assert report.last_error is not None
        assert "muster events" in report.last_error.remedy
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
        assert one.identity().device_id == old.device_id
        assert one.identity().origin is Origin.RECOVERY


async def test_one_who_may_not_recover_may_still_claim(fleet: FakeFleet, tmp_path: Path) -> None:
    """An operator reclaimed it, or the group lets the same key in again."""
    old = await expired_member(fleet, tmp_path / "state")
    fleet.service.forget_certificates()
    fleet.service.recover_script.append(Refused(Code.RECOVERY_REFUSED))
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.certificate_sha256 != old.certificate_sha256)
        assert one.identity().origin is Origin.CLAIM
    assert len(fleet.service.enrolls) == 2


async def test_one_who_was_reclaimed_after_its_end_claims_with_a_new_key(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    old = await expired_member(fleet, tmp_path / "state")
    fleet.service.recover_script.extend([Refused(Code.RECOVERY_REFUSED)] * 2)
    fleet.service.enroll_script.append(Refused(Code.KEY_IN_USE))
    async with running(tmp_path / "state", fleet) as one:
        await one.proves(lambda new: new.origin is Origin.CLAIM and new != old)
        assert one.identity().key_sha256 != old.key_sha256
    assert len({key_of(request.csr) for request in fleet.service.enrolls}) == 2


async def test_status_says_what_is_due(fleet: FakeFleet, tmp_path: Path) -> None:
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        report = status.report(tmp_path / "state")
        identity = one.identity()
    assert report.activity is Activity.ONLINE
    assert report.origin is Origin.CLAIM
    assert report.confirmed_at == identity.confirmed_at
    assert report.renewal_due is not None
    assert identity.not_before < report.renewal_due < identity.not_after


async def test_a_duty_sees_the_identity_that_was_renewed(fleet: FakeFleet, tmp_path: Path) -> None:
    async with running(tmp_path / "state", fleet) as one:
        await one.is_online()
        await fleet.service.retain(ORDERS, order(1))
        await one.proves(lambda new: new.order == 1)
        await eventually(lambda: len(one.seen) >= 2)
    assert one.seen[-1].order == 1
