"""What nobody came for is taken back; what was proven, or is still in time, is not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, Reprovision, RevocationReason
from broker.protocol.codes import Code
from broker.protocol.names import CertificateSerial, DeviceId
from broker.services import lapse
from tests.support.csrs import fresh_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.operating import NOW
from tests.support.records import (
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)

LATE = CONFIRM_WITHIN + timedelta(seconds=1)


async def test_an_unproven_certificate_is_revoked_and_its_serial_number_is_free(
    desk: Desk,
) -> None:
    await desk.enroll("A1")
    desk.clock.at += LATE
    assert await desk.lapsing.revoke_unconfirmed() == 1
    (certificate,) = await desk.certificates()
    assert certificate.state is CertificateState.REVOKED
    assert certificate.revoked_for is RevocationReason.NEVER_CONFIRMED
    assert certificate.revoked_at == desk.clock.at
    assert (await desk.device()).state is DeviceState.REGISTERED
    assert await desk.counts() == (0, 0)
    assert await desk.read("counter", "crl.fleet.wanted") == 1
    event = (await desk.events())[-1]
    assert (event.kind, event.code) == (EventKind.CERTIFICATE_REVOKED, "never_confirmed")


@pytest.mark.parametrize("same_key", [True, False])
async def test_after_it_lapsed_the_serial_number_may_be_claimed_by_any_key(
    desk: Desk, same_key: bool
) -> None:
    key = fresh_key()
    first = await desk.enroll("A1", key)
    desk.clock.at += LATE
    await desk.lapsing.revoke_unconfirmed()
    second = await desk.enroll("A1", key if same_key else fresh_key())
    assert second.certificate_chain != first.certificate_chain
    assert second.device_id == "lamp-A1"
    assert await desk.counts() == (1, 1)


async def test_it_lapses_when_its_time_is_up_and_not_before(desk: Desk) -> None:
    await desk.enroll("A1")
    desk.clock.at += CONFIRM_WITHIN - timedelta(microseconds=1)
    assert await desk.lapsing.revoke_unconfirmed() == 0
    desk.clock.at += timedelta(microseconds=1)
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert await desk.lapsing.revoke_unconfirmed() == 0


async def test_a_device_that_still_asks_is_given_time(desk: Desk) -> None:
    key = fresh_key()
    await desk.enroll("A1", key)
    desk.clock.at += LATE
    await desk.enroll("A1", key)
    assert await desk.lapsing.revoke_unconfirmed() == 0


async def test_a_proven_certificate_doesn_t_lapse(desk: Desk) -> None:
    await desk.join("A1")
    desk.clock.at += timedelta(days=30)
    assert await desk.lapsing.revoke_unconfirmed() == 0
    assert (await desk.device()).state is DeviceState.ACTIVE


async def test_a_device_that_was_rotating_lives_on_with_its_old_certificate(desk: Desk) -> None:
    await desk.write(("save_group", a_group(reprovision=Reprovision.REPLACE)))
    old = await desk.join("A1")
    await desk.enroll("A1")
    desk.clock.at += LATE
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert (await desk.device()).state is DeviceState.ACTIVE
    kept, lapsed = await desk.certificates()
    assert kept == old
    assert lapsed.state is CertificateState.REVOKED
    assert await desk.counts() == (1, 1)


@pytest.mark.parametrize("state", [DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED])
async def test_a_device_stays_where_an_operator_put_it(desk: Desk, state: DeviceState) -> None:
    await desk.enroll("A1")
    await desk.write(("save_device", replace(await desk.device(), state=state)))
    desk.clock.at += LATE
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert (await desk.device()).state is state
    assert await desk.counts() == (0, 1)


async def test_many_are_taken_back_in_batches(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lapse, "_BATCH", 4)
    for number in range(10):
        await desk.write(*_unproven(number, desk))
    assert await desk.lapsing.revoke_unconfirmed() == 10
    states = await desk.read("count_devices")
    assert states[DeviceState.REGISTERED] == sum(states.values()) == 10


def _unproven(number: int, desk: Desk) -> list[tuple[Any, ...]]:
    """A device whose certificate has just run out of time."""
    name = DeviceId(f"lamp-{number}")
    certificate = a_certificate(
        serial=CertificateSerial(f"d{number}"),
        device_id=name,
        key_sha256=a_fingerprint(f"key {number}"),
        certificate_sha256=a_fingerprint(f"certificate {number}"),
        confirm_by=desk.clock.at,
    )
    return [
        ("save_device", a_device(id=name, serial=str(number))),
        ("save_certificate", certificate),
        ("count_device", "lamps", 1),
        ("count_claim", "batch-7", 1),
    ]


async def test_claims_that_lapse_over_and_over_use_the_certificate_up(desk: Desk) -> None:
    # Each leaves a line on the CRL, for as long as the certificate would have been valid.
    claim = a_claim_certificate(not_before=NOW, not_after=NOW + timedelta(days=30), max_claims=3)
    await desk.write(("save_claim_certificate", claim))
    for _ in range(6):
        await desk.enroll("A1")
        desk.clock.at += LATE
        await desk.lapsing.revoke_unconfirmed()
    assert await desk.refused_enroll("A1") is Code.CLAIM_EXHAUSTED
    assert len(await desk.certificates()) == 6
