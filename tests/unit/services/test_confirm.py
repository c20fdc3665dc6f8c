"""A confirmation, from the request to all that one commit makes durable."""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, Reprovision
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId
from broker.protocol.topics import DeviceOrigin
from broker.protocol.zones import Zone
from tests.support.csrs import fresh_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.operating import NOW
from tests.support.records import a_fingerprint, a_group
from tests.support.signing import confirmation

LAMP = DeviceOrigin(DeviceId("lamp-A1"))


async def issued(desk: Desk, serial: str = "A1") -> str:
    """The fingerprint of a certificate that was just issued."""
    answer = await desk.enroll(serial)
    return (await desk.certificates(answer.device_id))[-1].certificate_sha256


async def refusal(desk: Desk, device_id: str, sha256: str) -> Code:
    with pytest.raises(Refused) as refused:
        await desk.confirm(device_id, sha256)
    return refused.value.code


async def test_a_confirmed_device_is_active(desk: Desk) -> None:
    sha256 = await issued(desk)
    desk.clock.at += timedelta(minutes=1)
    answer = await desk.confirm("lamp-A1", sha256)
    device, (certificate,) = await desk.device(), await desk.certificates()
    assert device.state is DeviceState.ACTIVE
    assert device.activated_at == certificate.confirmed_at == NOW + timedelta(minutes=1)
    assert certificate.state is CertificateState.ACTIVE
    assert (answer.device_id, answer.certificate_sha256) == ("lamp-A1", sha256)
    assert answer.not_after == certificate.not_after
    assert await desk.counts() == (1, 1)


async def test_the_answer_is_committed_for_the_device_alone(desk: Desk) -> None:
    key = fresh_key()
    await desk.enroll("A1", key)
    (certificate,) = await desk.certificates()
    request = confirmation(key, "lamp-A1", certificate.certificate_sha256)
    reply = await desk.confirming.confirm(DeviceOrigin(DeviceId("lamp-A1")), request)
    assert reply.zone is Zone.FLEET
    assert reply.topic == "muster/v1/device/lamp-A1/confirm/accepted"
    assert reply in await desk.replies()


async def test_the_confirmation_leaves_one_event(desk: Desk) -> None:
    await desk.join("A1")
    event = (await desk.events())[-1]
    assert event.kind is EventKind.DEVICE_ACTIVE
    assert (event.device_id, event.serial_number) == ("lamp-A1", "A1")
    assert (event.claim_name, event.group) == ("batch-7", "lamps")


async def test_to_confirm_again_changes_nothing_and_is_answered_again(desk: Desk) -> None:
    certificate = await desk.join("A1")
    before, device = await desk.events(), await desk.device()
    desk.clock.at += timedelta(days=1)
    answer = await desk.confirm("lamp-A1", certificate.certificate_sha256)
    assert answer.not_after == certificate.not_after
    assert await desk.events() == before
    assert await desk.device() == device
    assert await desk.certificates() == [certificate]
    assert len(await desk.replies()) == 3


async def test_fifty_confirmations_at_once_activate_once(desk: Desk) -> None:
    sha256 = await issued(desk)
    await asyncio.gather(*(desk.confirm("lamp-A1", sha256) for _ in range(50)))
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.DEVICE_ACTIVE) == 1


async def test_a_proof_replaces_every_older_certificate(desk: Desk) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    await desk.join("A1")
    second = await issued(desk)
    await desk.confirm("lamp-A1", second)
    old, new = await desk.certificates()
    assert (old.state, new.state) == (CertificateState.REVOKED, CertificateState.ACTIVE)
    assert new.certificate_sha256 == second
    assert await desk.read("counter", "crl.fleet.wanted") == 1
    first_day = (await desk.device()).activated_at
    assert first_day == NOW


async def test_to_confirm_what_was_replaced_is_refused(desk: Desk) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    first = await issued(desk)
    second = await issued(desk)
    assert await refusal(desk, "lamp-A1", first) is Code.CERTIFICATE_REVOKED
    await desk.confirm("lamp-A1", second)


async def test_the_old_certificate_can_be_confirmed_again_while_a_newer_one_waits(
    desk: Desk,
) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    old = await desk.join("A1")
    await issued(desk)
    await desk.confirm("lamp-A1", old.certificate_sha256)
    assert (await desk.device()).state is DeviceState.ROTATING


async def test_nobody_confirms_another_s_certificate(desk: Desk) -> None:
    theirs = await issued(desk, "A2")
    await issued(desk, "A1")
    before = await desk.everything()
    assert await refusal(desk, "lamp-A1", theirs) is Code.CERTIFICATE_UNKNOWN
    assert await refusal(desk, "lamp-A1", a_fingerprint("none")) is Code.CERTIFICATE_UNKNOWN
    assert await refusal(desk, "nobody", theirs) is Code.CERTIFICATE_UNKNOWN
    assert await desk.everything() == before


async def test_an_expired_certificate_is_refused(desk: Desk) -> None:
    sha256 = await issued(desk)
    desk.clock.at += timedelta(days=90)
    assert await refusal(desk, "lamp-A1", sha256) is Code.CERTIFICATE_REVOKED


async def test_a_late_confirmation_is_accepted_until_the_certificate_is_taken_back(
    desk: Desk,
) -> None:
    early, late = await issued(desk, "A1"), await issued(desk, "A2")
    desk.clock.at += CONFIRM_WITHIN * 2
    await desk.confirm("lamp-A1", early)
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert await refusal(desk, "lamp-A2", late) is Code.CERTIFICATE_REVOKED
    assert (await desk.device("lamp-A1")).state is DeviceState.ACTIVE


@pytest.mark.parametrize("state", [DeviceState.SUSPENDED, DeviceState.RETIRED])
async def test_a_blocked_device_can_t_confirm(desk: Desk, state: DeviceState) -> None:
    certificate = await desk.join("A1", fresh_key())
    await desk.write(("save_device", replace(await desk.device(), state=state)))
    before = await desk.everything()
    found = await refusal(desk, "lamp-A1", certificate.certificate_sha256)
    assert found is Code.DEVICE_BLOCKED
    assert await desk.everything() == before


async def test_a_certificate_is_confirmed_by_its_own_key_alone(desk: Desk) -> None:
    key, other = fresh_key(), fresh_key()
    await desk.join("A2", other)
    await desk.enroll("A1", key)
    (certificate,) = await desk.certificates()
    named = certificate.certificate_sha256
    wrong = [
        *(confirmation(by, "lamp-A1", named) for by in (other, fresh_key())),
        replace(confirmation(key, "lamp-A1", named), request_id="r9"),
        confirmation(key, "lamp-A2", named),
        confirmation(key, "lamp-A1", a_fingerprint("another")),
    ]
    before = await desk.everything()
    for request in wrong:
        asked = replace(request, certificate_sha256=named)
        with pytest.raises(Refused) as refused:
            await desk.confirming.confirm(LAMP, asked)
        assert refused.value.code is Code.CONFIRMATION_SIGNATURE_INVALID
    assert await desk.everything() == before
    await desk.confirming.confirm(LAMP, confirmation(key, "lamp-A1", named))
    assert (await desk.device()).state is DeviceState.ACTIVE
