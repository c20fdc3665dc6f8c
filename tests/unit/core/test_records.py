"""What records say of themselves."""

from datetime import datetime, timedelta

import pytest

from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import LockOut, has_expired
from broker.protocol.names import CertificateSerial, DeviceId
from tests.support.records import NOW, a_certificate, a_device


@pytest.mark.parametrize("state", CertificateState)
def test_a_certificate_is_live_unless_it_was_revoked(state: CertificateState) -> None:
    assert a_certificate(state=state).is_live(NOW) is (state is not CertificateState.REVOKED)


@pytest.mark.parametrize(
    ("left", "is_live"),
    [(timedelta(microseconds=1), True), (timedelta(0), False), (timedelta(seconds=-1), False)],
)
def test_a_certificate_is_live_until_it_expires(left: timedelta, is_live: bool) -> None:
    assert a_certificate(not_after=NOW + left).is_live(NOW) is is_live


@pytest.mark.parametrize("state", CertificateState)
def test_a_certificate_that_is_held_isn_t_live(state: CertificateState) -> None:
    assert not a_certificate(state=state, held_at=NOW).is_live(NOW)


@pytest.mark.parametrize(
    ("act", "crl_at", "disconnected_at", "is_complete"),
    [
        (DeviceInput.REVOKE, None, None, False),
        (DeviceInput.REVOKE, NOW, None, False),
        (DeviceInput.REVOKE, None, NOW, False),
        (DeviceInput.REVOKE, NOW, NOW, True),
        (DeviceInput.RESUME, None, None, False),
        (DeviceInput.RESUME, NOW, None, True),
    ],
)
def test_a_lock_out_is_complete_when_the_broker_refuses_and_nobody_is_left(
    act: DeviceInput, crl_at: datetime | None, disconnected_at: datetime | None, is_complete: bool
) -> None:
    lock_out = LockOut(
        id="l1",
        device_id=DeviceId("lamp-A1"),
        act=act,
        serials=(CertificateSerial("d1"),),
        requested_at=NOW,
        crl_wanted=1,
        crl_at=crl_at,
        disconnected_at=disconnected_at,
    )
    assert lock_out.is_complete is is_complete


PAST = NOW - timedelta(seconds=1)


@pytest.mark.parametrize(
    ("state", "certificates", "expected"),
    [
        (DeviceState.ACTIVE, [(CertificateState.ACTIVE, PAST)], True),
        (DeviceState.ROTATING, [(CertificateState.ACTIVE, PAST)], True),
        (DeviceState.ACTIVE, [(CertificateState.ACTIVE, NOW + timedelta(days=1))], False),
        (
            DeviceState.ACTIVE,
            [(CertificateState.ACTIVE, PAST), (CertificateState.ISSUED, NOW + timedelta(days=1))],
            False,
        ),
        # It never proved one: it's late with its claim, not expired.
        (DeviceState.ACTIVE, [(CertificateState.ISSUED, PAST)], False),
        (DeviceState.PENDING, [(CertificateState.ACTIVE, PAST)], False),
        (DeviceState.SUSPENDED, [(CertificateState.ACTIVE, PAST)], False),
        (DeviceState.REVOKED, [(CertificateState.ACTIVE, PAST)], False),
        (DeviceState.ACTIVE, [], False),
    ],
)
def test_a_member_has_expired_when_what_it_proved_has(
    state: DeviceState, certificates: list[tuple[CertificateState, datetime]], expected: bool
) -> None:
    held = [a_certificate(state=each, not_after=until) for each, until in certificates]
    assert has_expired(a_device(state=state), held, NOW) is expected
