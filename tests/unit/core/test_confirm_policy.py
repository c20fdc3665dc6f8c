"""What a confirmation does, in each state of device and certificate."""

from itertools import product

import pytest

from broker.core.confirm_policy import Activate, AlreadyActive, decide_confirm, own_certificate
from broker.core.lifecycle import (
    CertificateInput,
    CertificateState,
    DeviceInput,
    DeviceState,
    next_certificate_state,
    next_device_state,
)
from broker.core.records import Certificate, Device
from broker.protocol.codes import Code, Refused
from broker.protocol.names import CertificateSerial, DeviceId
from tests.support.records import NOW, a_certificate, a_device

MEMBERS = {DeviceState.PENDING, DeviceState.ACTIVE, DeviceState.ROTATING}


def code(device: Device | None, certificate: Certificate | None) -> Code:
    with pytest.raises(Refused) as refused:
        decide_confirm(device, certificate, (), NOW)
    return refused.value.code


def test_a_device_that_the_registry_doesn_t_know_is_refused() -> None:
    assert code(None, a_certificate()) is Code.CERTIFICATE_UNKNOWN
    assert code(None, None) is Code.CERTIFICATE_UNKNOWN


def test_a_certificate_that_isn_t_this_device_s_is_refused_like_one_that_doesn_t_exist() -> None:
    others = a_certificate(device_id=DeviceId("lamp-B2"))
    assert code(a_device(), None) is Code.CERTIFICATE_UNKNOWN
    assert code(a_device(), others) is Code.CERTIFICATE_UNKNOWN


def test_a_device_names_a_certificate_of_its_own() -> None:
    own = a_certificate()
    assert own_certificate(own.device_id, own) is own
    for other in (None, a_certificate(device_id=DeviceId("lamp-B2"))):
        with pytest.raises(Refused) as refused:
            own_certificate(own.device_id, other)
        assert refused.value.code is Code.CERTIFICATE_UNKNOWN


@pytest.mark.parametrize(("state", "proven"), list(product(DeviceState, CertificateState)))
def test_each_pair_of_states(state: DeviceState, proven: CertificateState) -> None:
    device, certificate = a_device(state=state), a_certificate(state=proven)
    if proven is CertificateState.REVOKED:
        assert code(device, certificate) is Code.CERTIFICATE_REVOKED
    elif state not in MEMBERS:
        assert code(device, certificate) is Code.DEVICE_BLOCKED
    elif proven is CertificateState.SUPERSEDED:
        assert code(device, certificate) is Code.CERTIFICATE_SUPERSEDED
    elif proven is CertificateState.ACTIVE:
        assert decide_confirm(device, certificate, (certificate,), NOW) == AlreadyActive()
    else:
        assert decide_confirm(device, certificate, (certificate,), NOW) == Activate(replaced=())
        assert next_device_state(state, DeviceInput.CONFIRM) is DeviceState.ACTIVE
        next_certificate_state(proven, CertificateInput.CONFIRM)


def test_an_expired_certificate_proves_nothing_and_its_key_recovers_if_it_was_in_use() -> None:
    """An answer that said "revoked" would have the device throw away what it recovers by."""
    never_used = a_certificate(state=CertificateState.ISSUED, not_after=NOW)
    assert code(a_device(), never_used) is Code.CERTIFICATE_REVOKED
    expired = a_certificate(state=CertificateState.ACTIVE, not_after=NOW)
    assert code(a_device(), expired) is Code.CERTIFICATE_EXPIRED


def test_a_late_proof_is_good_as_long_as_nothing_was_taken_back() -> None:
    late = a_certificate(confirm_by=a_certificate().not_before)
    assert isinstance(decide_confirm(a_device(), late, (late,), NOW), Activate)


OTHERS = tuple(
    a_certificate(serial=CertificateSerial(f"e-{state}"), state=state)
    for state in CertificateState
    if state is not CertificateState.REVOKED
)


def test_what_was_claimed_replaces_every_other_live_certificate() -> None:
    proven = a_certificate()
    device = a_device(state=DeviceState.ROTATING)
    assert decide_confirm(device, proven, (*OTHERS, proven), NOW) == Activate(replaced=OTHERS)


def test_what_was_renewed_supersedes_every_other_certificate_once() -> None:
    proven = a_certificate(claim_name=None)
    device = a_device(state=DeviceState.ROTATING)
    decision = decide_confirm(device, proven, (*OTHERS, proven), NOW)
    older = tuple(c for c in OTHERS if c.state is not CertificateState.SUPERSEDED)
    assert decision == Activate(replaced=(), superseded=older)


def test_a_repeated_confirmation_replaces_nothing() -> None:
    proven = a_certificate(state=CertificateState.ACTIVE)
    newer = a_certificate(serial=CertificateSerial("e1"))
    device = a_device(state=DeviceState.ROTATING)
    assert decide_confirm(device, proven, (proven, newer), NOW) == AlreadyActive()


def test_a_suspended_device_is_told_that_it_is_blocked_and_keeps_its_certificate() -> None:
    """An answer that said "revoked" would have the device throw away what it may use again."""
    held = a_certificate(state=CertificateState.ACTIVE, held_at=NOW)
    assert code(a_device(state=DeviceState.SUSPENDED), held) is Code.DEVICE_BLOCKED
    assert code(a_device(state=DeviceState.ACTIVE), held) is Code.CERTIFICATE_REVOKED
