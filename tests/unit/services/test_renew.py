"""A renewal, from the request to all that one commit makes durable; and the old one's grace."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import pytest

from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import EventKind, Reply, Reprovision, RevocationReason, RotationKey
from broker.core.renew_policy import SUCCESSORS_IN_A_GRACE
from broker.core.successor import SUCCESSORS_A_DAY
from broker.ports.registry import WriteTransaction
from broker.protocol import limits
from broker.protocol.codes import Code, Refused
from broker.protocol.names import CertificateSerial, DeviceId
from broker.protocol.topics import DeviceOrigin
from broker.protocol.zones import Zone
from broker.services import superseded
from broker.services.device_acts import Wanted, act_on
from broker.services.revoking import revoke_certificate
from broker.services.superseded import SupersededService
from tests.support.csrs import PrivateKey, csr_pem, fresh_key, private_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.records import a_group
from tests.support.signing import renewal
from tests.support.succeeding import (
    accepted,
    code_of,
    give_order,
    recover,
    renew,
    rotate,
)

GRACE = timedelta(hours=1)
REST = timedelta(seconds=60)
WANTED = ("counter", "crl.fleet.wanted")
LAMP = DeviceOrigin(DeviceId("lamp-A1"))


def revoke(now: datetime, serial: CertificateSerial, tx: WriteTransaction) -> None:
    """Puts one certificate out."""
    found = tx.certificate_by_serial(serial)
    device = tx.device(LAMP.device_id)
    assert found is not None
    assert device is not None
    revoke_certificate(tx, device, found, RevocationReason.SUPERSEDED, now)


async def states(desk: Desk) -> list[CertificateState]:
    return [c.state for c in await desk.certificates()]


async def test_a_renewed_certificate_waits_beside_the_one_in_use(desk: Desk) -> None:
    old = await desk.join("A1")
    await give_order(desk, 4)
    reply = await renew(desk, fresh_key(), order=4)
    answer = accepted(reply)
    kept, new = await desk.certificates()
    assert kept == old
    assert (new.state, new.claim_name, new.rotation_order) == (CertificateState.ISSUED, None, 4)
    assert (await desk.device()).state is DeviceState.ROTATING
    assert answer.certificate_chain.startswith(new.pem)
    assert answer.confirm_by == new.confirm_by
    assert (reply.zone, reply.topic) == (Zone.FLEET, "muster/v1/device/lamp-A1/renew/accepted")
    assert reply in await desk.replies()
    assert await desk.counts() == (1, 1)
    event = (await desk.events())[-1]
    assert (event.kind, event.device_id) == (EventKind.RENEWAL_ACCEPTED, "lamp-A1")
    assert event.detail == f"certificate {new.serial}, order 4"


async def test_the_same_key_gets_the_same_certificate_and_its_time_again(desk: Desk) -> None:
    await desk.join("A1")
    await give_order(desk, 2)
    key = fresh_key()
    first = accepted(await renew(desk, key))
    desk.clock.at += CONFIRM_WITHIN * 0.9
    second = accepted(await renew(desk, key, order=2))
    assert second.certificate_chain == first.certificate_chain
    assert second.confirm_by == desk.clock.at + CONFIRM_WITHIN
    _, new = await desk.certificates()
    assert new.rotation_order == 2
    third = await renew(desk, key, order=1)
    assert (await desk.certificates())[-1].rotation_order == 2
    assert accepted(third).certificate_chain == first.certificate_chain


@pytest.mark.parametrize("order", [6, limits.MAX_COUNTER])
async def test_an_order_that_was_never_given_is_not_followed(desk: Desk, order: int) -> None:
    # Else whoever holds a device's key follows every campaign that is still to come.
    await desk.join("A1")
    await desk.join("A2")
    key = fresh_key()
    for given in ("lamp-A2", None, "lamp-A1"):
        if given:
            await give_order(desk, 7 if given == "lamp-A2" else 5, given)
        await renew(desk, key, order=order)
        assert (await desk.certificates())[-1].rotation_order is None
    await renew(desk, key, order=5)
    assert (await desk.certificates())[-1].rotation_order == 5


async def test_a_device_s_key_makes_no_certificates_without_end(desk: Desk) -> None:
    await desk.join("A1")
    keys = [fresh_key() for _ in range(SUCCESSORS_A_DAY)]
    answers = [await renew(desk, key) for key in keys]
    with pytest.raises(Refused) as refused:
        await renew(desk, fresh_key())
    assert (refused.value.code, refused.value.retry_after_s) == (Code.RATE_LIMITED, 3600)
    again = await renew(desk, keys[-1])
    assert accepted(again).certificate_chain == accepted(answers[-1]).certificate_chain
    assert len(await desk.certificates()) == 1 + SUCCESSORS_A_DAY
    desk.clock.at += timedelta(days=1)
    await renew(desk, fresh_key())


async def test_an_old_key_leaves_the_device_some_of_the_day_s_certificates(desk: Desk) -> None:
    """Whoever copied it asks on, by that key and by those that it gets, and proves none of them."""
    old = fresh_key()
    await desk.join("A1", old)
    await rotate(desk, fresh_key())
    by = old
    for _ in range(SUCCESSORS_IN_A_GRACE - 1):
        key = fresh_key()
        await renew(desk, key, by=by)
        by = key
    for each in (old, by):
        with pytest.raises(Refused) as refused:
            await renew(desk, fresh_key(), by=each)
        assert refused.value.code is Code.RATE_LIMITED
    for _ in range(SUCCESSORS_A_DAY - SUCCESSORS_IN_A_GRACE):
        await renew(desk, fresh_key())
    with pytest.raises(Refused):
        await renew(desk, fresh_key())


async def test_fifty_requests_at_once_make_one_certificate(desk: Desk) -> None:
    await desk.join("A1")
    key = fresh_key()
    replies = await asyncio.gather(*(renew(desk, key) for _ in range(50)))
    assert len({accepted(reply).certificate_chain for reply in replies}) == 1
    assert len(await desk.certificates()) == 2


async def test_the_old_one_is_good_until_its_grace_is_over_and_not_for_longer(desk: Desk) -> None:
    await desk.join("A1")
    await rotate(desk, fresh_key())
    old, new = await desk.certificates()
    assert (old.state, new.state) == (CertificateState.SUPERSEDED, CertificateState.ACTIVE)
    assert old.grace_until == desk.clock.at + GRACE
    assert await desk.read(*WANTED) == 0
    desk.clock.at += GRACE - timedelta(microseconds=1)
    assert await desk.superseding.revoke_superseded() == 0
    assert old.is_live(desk.clock.at)
    desk.clock.at += timedelta(microseconds=1)
    assert not old.is_live(desk.clock.at)
    assert await desk.superseding.revoke_superseded() == 1
    old, new = await desk.certificates()
    assert (old.state, old.revoked_for) == (
        CertificateState.REVOKED,
        RevocationReason.SUPERSEDED,
    )
    assert new.is_live(desk.clock.at)
    assert await desk.read(*WANTED) == 1
    (owed,) = await desk.read("lock_outs_of", "lamp-A1")
    assert (owed.act, owed.serials, owed.crl_wanted) == (DeviceInput.CONFIRM, (old.serial,), 1)
    assert await desk.counts() == (1, 1)


async def test_what_is_over_within_a_minute_shares_a_crl(desk: Desk) -> None:
    for number in range(1, 6):
        await desk.join(f"A{number}")
        await rotate(desk, fresh_key(), f"lamp-A{number}")
        desk.clock.at += timedelta(seconds=1)
    desk.clock.at += GRACE - timedelta(seconds=4)
    assert await desk.superseding.revoke_superseded() == 2
    for _ in range(59):
        desk.clock.at += timedelta(seconds=1)
        assert await desk.superseding.revoke_superseded() == 0
    desk.clock.at += timedelta(seconds=1)
    assert await desk.superseding.revoke_superseded() == 3
    assert await desk.read(*WANTED) == 2


async def test_more_than_a_batch_holds_doesn_t_wait_for_a_minute(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superseded, "BATCH", 1)
    desk.superseding = SupersededService(desk.registry, desk.clock)
    for number in range(1, 4):
        await desk.join(f"A{number}")
        await rotate(desk, fresh_key(), f"lamp-A{number}")
    desk.clock.at += GRACE
    for batch in (1, 2):
        assert await desk.superseding.revoke_superseded() == batch
        desk.clock.at += timedelta(seconds=1)
    assert await desk.superseding.revoke_superseded() == 0


async def test_the_group_says_how_long_the_grace_is(desk: Desk) -> None:
    await desk.write(("save_group", a_group(rotation_grace=timedelta())))
    await desk.join("A1")
    await rotate(desk, fresh_key())
    assert await desk.superseding.revoke_superseded() == 1
    assert await states(desk) == [CertificateState.REVOKED, CertificateState.ACTIVE]


async def test_the_old_one_can_t_be_confirmed_again_but_the_device_can_still_renew(
    desk: Desk,
) -> None:
    old = await desk.join("A1")
    await rotate(desk, fresh_key())
    refused = desk.confirm("lamp-A1", old.certificate_sha256)
    assert await code_of(refused) is Code.CERTIFICATE_SUPERSEDED
    await rotate(desk, fresh_key())
    assert await states(desk) == [
        CertificateState.SUPERSEDED,
        CertificateState.SUPERSEDED,
        CertificateState.ACTIVE,
    ]


async def test_a_later_rotation_doesn_t_lengthen_an_earlier_grace(desk: Desk) -> None:
    await desk.join("A1")
    await rotate(desk, fresh_key())
    before = (await desk.certificates())[0].grace_until
    desk.clock.at += GRACE / 2
    await rotate(desk, fresh_key())
    assert (await desk.certificates())[0].grace_until == before


async def test_a_key_that_is_given_up_loses_its_certificate_without_a_crl_of_its_own(
    desk: Desk,
) -> None:
    old = await desk.join("A1")
    await renew(desk, fresh_key())
    await rotate(desk, fresh_key())
    kept, lost, new = await desk.certificates()
    assert (kept.serial, kept.state) == (old.serial, CertificateState.SUPERSEDED)
    assert (lost.state, lost.grace_until) == (CertificateState.SUPERSEDED, desk.clock.at)
    assert new.state is CertificateState.ACTIVE
    assert await desk.read(*WANTED) == 0
    refused = desk.confirm("lamp-A1", lost.certificate_sha256)
    assert await code_of(refused) is Code.CERTIFICATE_REVOKED
    assert await desk.superseding.revoke_superseded() == 1


async def test_a_replayed_renewal_is_refused_and_changes_nothing(desk: Desk) -> None:
    first, second = fresh_key(), fresh_key()
    await desk.join("A1", first)
    await rotate(desk, second)
    await rotate(desk, fresh_key())
    before = await desk.everything()
    for key in (first, second):
        assert await code_of(renew(desk, key)) is Code.KEY_RETIRED
    desk.clock.at += GRACE
    await desk.superseding.revoke_superseded()
    for key in (first, second):
        assert await code_of(renew(desk, key)) is Code.KEY_RETIRED
    assert (await desk.everything())[0] == before[0]


async def test_a_renewal_that_lapsed_may_be_repeated_with_its_key(desk: Desk) -> None:
    await desk.join("A1")
    key = fresh_key()
    first = accepted(await renew(desk, key))
    desk.clock.at += CONFIRM_WITHIN * 2
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert (await desk.device()).state is DeviceState.ACTIVE
    second = accepted(await renew(desk, key))
    assert second.certificate_chain != first.certificate_chain
    assert await desk.counts() == (1, 1)


async def test_the_same_key_renews_where_the_group_allows_it(desk: Desk) -> None:
    await desk.write(("save_group", a_group(rotation_key=RotationKey.SAME_ALLOWED)))
    key = fresh_key()
    await desk.join("A1", key)
    await rotate(desk, key)
    await rotate(desk, key)
    assert await states(desk) == [
        CertificateState.SUPERSEDED,
        CertificateState.SUPERSEDED,
        CertificateState.ACTIVE,
    ]


async def test_nobody_renews_with_another_s_key(desk: Desk) -> None:
    theirs = fresh_key()
    await desk.join("A1")
    await desk.join("A2", theirs)
    before = await desk.everything()
    assert await code_of(renew(desk, theirs)) is Code.KEY_IN_USE
    assert await code_of(renew(desk, fresh_key(), "nobody")) is Code.CERTIFICATE_UNKNOWN
    assert await desk.everything() == before


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (DeviceInput.SUSPEND, Code.DEVICE_BLOCKED),
        (DeviceInput.REVOKE, Code.DEVICE_BLOCKED),
        (DeviceInput.RETIRE, Code.DEVICE_BLOCKED),
    ],
)
async def test_who_was_put_out_doesn_t_renew(desk: Desk, act: DeviceInput, code: Code) -> None:
    device = await desk.join("A1")
    now = desk.clock.at
    await desk.registry.write(lambda tx: act_on(tx, device.device_id, "x", Wanted(act), now))
    before = await desk.everything()
    assert await code_of(renew(desk, fresh_key())) is code
    assert await desk.everything() == before


async def test_a_device_proves_itself_before_it_renews(desk: Desk) -> None:
    await desk.enroll("A1")
    assert await code_of(renew(desk, fresh_key())) is Code.CERTIFICATE_UNCONFIRMED


async def test_a_suspended_device_s_old_certificate_still_ends(desk: Desk) -> None:
    await desk.join("A1")
    await rotate(desk, fresh_key())
    now, act = desk.clock.at, Wanted(DeviceInput.SUSPEND)
    device = await desk.device()
    await desk.registry.write(lambda tx: act_on(tx, device.id, "x", act, now))
    desk.clock.at += GRACE
    assert await desk.superseding.revoke_superseded() == 1
    old, new = await desk.certificates()
    assert (old.state, old.held_at) == (CertificateState.REVOKED, None)
    assert (new.state, new.held_at) == (CertificateState.ACTIVE, now)
    owed = await desk.read("lock_outs_of", "lamp-A1")
    assert [each.act for each in owed] == [DeviceInput.SUSPEND]


async def test_a_claim_that_replaces_revokes_what_was_superseded_at_once(desk: Desk) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    await desk.join("A1")
    await rotate(desk, fresh_key())
    await desk.join("A1", fresh_key())
    assert await states(desk) == [
        CertificateState.REVOKED,
        CertificateState.REVOKED,
        CertificateState.ACTIVE,
    ]


async def test_an_expired_old_certificate_is_out_without_any_grace(desk: Desk) -> None:
    old = await desk.join("A1")
    await renew(desk, fresh_key())
    newest = (await desk.certificates())[-1]
    longer = replace(newest, not_after=newest.not_after + timedelta(days=1))
    await desk.write(("save_certificate", longer))
    desk.clock.at = old.not_after
    await desk.confirm("lamp-A1", newest.certificate_sha256)
    superseded_one, _ = await desk.certificates()
    assert not superseded_one.is_live(desk.clock.at)


async def test_renewing_again_without_end_leaves_a_bounded_log(desk: Desk) -> None:
    await desk.join("A1")
    key = fresh_key()
    for _ in range(50):
        await renew(desk, key)
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.RENEWAL_REPEATED) == 10


async def test_an_old_key_can_t_renew_beyond_its_grace(desk: Desk) -> None:
    # The sweep that revokes it may take a minute, and brokers vouch for the name alone.
    await desk.open_group(a_group(rotation_grace=timedelta()), None)
    old = fresh_key()
    await desk.join("A1", old)
    await rotate(desk, fresh_key())
    assert await code_of(renew(desk, fresh_key(), by=old)) is Code.RENEWAL_SIGNATURE_INVALID
    await renew(desk, fresh_key())
    assert await desk.superseding.revoke_superseded() >= 1
    assert await code_of(renew(desk, fresh_key(), by=old)) is Code.RENEWAL_SIGNATURE_INVALID
    await renew(desk, fresh_key())


async def test_a_renewal_by_a_key_in_its_grace_is_conspicuous_and_one_by_the_newest_isn_t(
    desk: Desk,
) -> None:
    key = fresh_key()
    first = await desk.join("A1", key)
    await rotate(desk, fresh_key())
    for by, is_conspicuous in ((key, True), (None, False)):
        await renew(desk, fresh_key(), by=by)
        event = (await desk.events())[-1]
        assert event.kind is EventKind.RENEWAL_ACCEPTED
        said = f"by {first.serial}, which is in its grace" in (event.detail or "")
        assert said is is_conspicuous


async def test_what_expired_in_its_grace_keeps_nobody_from_renewing(desk: Desk) -> None:
    group = a_group(rotation_grace=timedelta(days=2), certificate_lifetime=timedelta(days=1))
    await desk.open_group(group, None)
    await desk.join("A1")
    desk.clock.at += timedelta(hours=20)
    await rotate(desk, fresh_key())
    desk.clock.at += timedelta(hours=10)
    await renew(desk, fresh_key())


async def test_a_connection_that_outlived_its_certificate_renews_nothing(desk: Desk) -> None:
    """Brokers keep it, and whoever holds it would need no recovery, and no operator's word."""
    in_use, key = fresh_key(), fresh_key()
    old = await desk.join("A1", in_use)
    desk.clock.at = old.not_after - timedelta(microseconds=1)
    first = accepted(await renew(desk, key))
    desk.clock.at = old.not_after
    before = await desk.everything()
    for asked in (key, fresh_key()):
        assert await code_of(renew(desk, asked)) is Code.CERTIFICATE_EXPIRED
    assert await desk.everything() == before
    # What was granted in time is given again where the expired are heard, and can be proven.
    again = accepted(await recover(desk, in_use, key, old))
    assert again.certificate_chain == first.certificate_chain
    desk.clock.at += CONFIRM_WITHIN
    assert await desk.lapsing.revoke_unconfirmed() == 1
    before = await desk.everything()
    for asked in (key, fresh_key()):
        assert await code_of(renew(desk, asked)) is Code.CERTIFICATE_EXPIRED
    assert await desk.everything() == before


async def signed_by(desk: Desk, key: PrivateKey) -> Code:
    """Why a renewal that is signed by `key` is refused, and nothing has changed by it."""
    before = await desk.everything()
    code = await code_of(renew(desk, fresh_key(), by=key))
    assert await desk.everything() == before
    return code


async def test_a_key_that_isn_t_the_device_s_now_renews_nothing(desk: Desk) -> None:
    revoked, neighbour_s = fresh_key(), fresh_key()
    old = await desk.join("A1", revoked)
    await desk.join("A2", neighbour_s)
    await rotate(desk, fresh_key())
    await renew(desk, fresh_key(), by=revoked)  # it is in its grace
    act = partial(revoke, desk.clock.at, old.serial)
    await desk.registry.write(act)
    for key in (revoked, neighbour_s, fresh_key(), private_key("ed25519")):
        assert await signed_by(desk, key) is Code.RENEWAL_SIGNATURE_INVALID


async def test_a_signature_is_for_its_request_alone(desk: Desk) -> None:
    key = fresh_key()
    await desk.join("A1", key)
    await give_order(desk, 5)
    good = renewal(key, fresh_key(), "lamp-A1", request_id="r3", order=3)
    csr = csr_pem(fresh_key())
    others = [
        *(replace(good, **change) for change in ({"request_id": "r4"}, {"csr": csr}, {"order": 4})),
        replace(good, order=None),
        renewal(key, fresh_key(), "lamp-A2", request_id="r3"),
    ]
    before = await desk.everything()
    for request in others:
        asking = desk.renewing.renew(LAMP, request)
        assert await code_of(asking) is Code.RENEWAL_SIGNATURE_INVALID
    assert await desk.everything() == before
    first, again = [accepted(await desk.renewing.renew(LAMP, good)) for _ in range(2)]
    assert first.certificate_chain == again.certificate_chain


async def test_a_recorded_renewal_is_worth_nothing_once_its_key_is_over(desk: Desk) -> None:
    await desk.open_group(a_group(rotation_grace=timedelta()), None)
    key = fresh_key()
    await desk.join("A1", key)
    recorded = renewal(key, fresh_key(), "lamp-A1", request_id="r3")
    await rotate(desk, fresh_key())
    before = await desk.everything()
    asking = desk.renewing.renew(LAMP, recorded)
    assert await code_of(asking) is Code.RENEWAL_SIGNATURE_INVALID
    assert await desk.everything() == before


async def test_a_key_that_is_put_out_while_its_signature_is_verified_renews_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = fresh_key()
    old = await desk.join("A1", key)
    await rotate(desk, fresh_key())
    write = desk.registry.write

    async def after_the_revocation(work: Callable[[WriteTransaction], Reply]) -> Reply:
        await write(partial(revoke, desk.clock.at, old.serial))
        return await write(work)

    monkeypatch.setattr(desk.registry, "write", after_the_revocation)
    code = await code_of(renew(desk, fresh_key(), by=key))
    assert code is Code.RENEWAL_SIGNATURE_INVALID


async def test_a_stranger_s_signature_doesn_t_reach_the_writer(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.join("A1")
    stranger = fresh_key()

    async def nobody_may(_: object) -> None:
        raise AssertionError("it reached the writer")

    monkeypatch.setattr(desk.registry, "write", nobody_may)
    code = await code_of(renew(desk, fresh_key(), by=stranger))
    assert code is Code.RENEWAL_SIGNATURE_INVALID


async def test_one_key_for_all_certificates_signs_for_as_long_as_one_of_them_counts(
    desk: Desk,
) -> None:
    same = RotationKey.SAME_ALLOWED
    await desk.open_group(a_group(rotation_key=same, rotation_grace=timedelta()), None)
    key = fresh_key()
    await desk.join("A1", key)
    for _ in range(3):
        await rotate(desk, key)
        event = (await desk.events())[-1]
        assert "in its grace" not in (event.detail or "")
    await desk.superseding.revoke_superseded()
    await renew(desk, key)
    await renew(desk, key)
    assert len(await desk.certificates()) == 5
