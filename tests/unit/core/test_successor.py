"""Which key gets a member's next certificate, and when nothing new is issued."""

from dataclasses import replace
from datetime import timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, EnrollmentGroup, RevocationReason, RotationKey
from broker.core.renew_policy import SUCCESSORS_IN_A_GRACE, admitted, decide_renew, signer, signers
from broker.core.successor import Member, Succeed
from broker.protocol.codes import Code, Refused
from broker.protocol.names import CertificateSerial, DeviceId
from tests.support.csrs import private_key
from tests.support.records import NOW, a_certificate, a_device, a_fingerprint, a_group

KEY = a_fingerprint("a new key")
IN_USE = a_certificate(serial=CertificateSerial("d0"), state=CertificateState.ACTIVE)


def asks(names: frozenset[str] = frozenset(), key_type: KeyType = KeyType.P256) -> VerifiedCsr:
    return VerifiedCsr(private_key("p256").public_key(), key_type, KEY, names, "0" * 64)


def member(
    *others: Certificate,
    state: DeviceState = DeviceState.ACTIVE,
    group: EnrollmentGroup | None = None,
) -> Member:
    return Member(a_device(state=state), group or a_group(), (IN_USE, *others))


def known(state: CertificateState = CertificateState.ISSUED, **changes: object) -> Certificate:
    """A certificate for the very key that is asked for."""
    fields = {"serial": CertificateSerial("d7"), "key_sha256": KEY, "claim_name": None}
    return a_certificate(**{**fields, "state": state, **changes})


def decide(
    asking: Member | None, csr: VerifiedCsr, key: Certificate | None, by: Certificate = IN_USE
) -> Succeed | Repeat:
    """What becomes of a renewal that is signed by the key of `by`."""
    found = admitted(asking)
    return decide_renew(found, signer(found, by.key_sha256, NOW), csr, key, NOW)


def code(asking: Member | None, csr: VerifiedCsr, key: Certificate | None = None) -> Code:
    with pytest.raises(Refused) as refused:
        decide(asking, csr, key)
    return refused.value.code


def test_a_new_key_gets_a_new_certificate() -> None:
    asking = member()
    assert decide(asking, asks(), None) == Succeed(asking, dropped=())


@pytest.mark.parametrize("state", DeviceState)
def test_only_members_renew(state: DeviceState) -> None:
    asking = member(state=state)
    if state in (DeviceState.ACTIVE, DeviceState.ROTATING):
        assert isinstance(decide(asking, asks(), None), Succeed)
    elif state is DeviceState.PENDING:
        assert code(asking, asks()) is Code.CERTIFICATE_UNCONFIRMED
    else:
        assert code(asking, asks()) is Code.DEVICE_BLOCKED


def test_who_isn_t_in_the_registry_is_nobody() -> None:
    assert code(None, asks()) is Code.CERTIFICATE_UNKNOWN


def test_the_group_says_which_keys() -> None:
    asking = member(group=a_group(allowed_keys=frozenset({KeyType.P256})))
    assert code(asking, asks(key_type=KeyType.RSA)) is Code.KEY_NOT_ALLOWED


@pytest.mark.parametrize(("name", "is_own"), [("A1", True), ("lamp-A1", True), ("lamp-B2", False)])
def test_a_request_names_nobody_else(name: str, is_own: bool) -> None:
    csr = asks(names=frozenset({name}))
    if is_own:
        assert isinstance(decide(member(), csr, None), Succeed)
    else:
        assert code(member(), csr) is Code.CSR_NAME_MISMATCH


@pytest.mark.parametrize("state", CertificateState)
def test_another_s_key_is_another_s_whatever_became_of_it(state: CertificateState) -> None:
    theirs = known(state, device_id=DeviceId("lamp-B2"))
    assert code(member(), asks(), theirs) is Code.KEY_IN_USE


def test_the_same_key_gets_the_same_unproven_certificate() -> None:
    pending = known()
    asking = member(pending, state=DeviceState.ROTATING)
    assert decide(asking, asks(), pending) == Repeat(asking.device, pending)


@pytest.mark.parametrize("rotation", RotationKey)
def test_the_key_in_use_is_good_again_only_where_the_group_says_so(rotation: RotationKey) -> None:
    asking, in_use = member(group=a_group(rotation_key=rotation)), known(CertificateState.ACTIVE)
    if rotation is RotationKey.SAME_ALLOWED:
        assert isinstance(decide(asking, asks(), in_use), Succeed)
    else:
        assert code(asking, asks(), in_use) is Code.KEY_NOT_NEW


@pytest.mark.parametrize(
    ("reason", "rotation"), list(product([*RevocationReason, None], RotationKey))
)
def test_a_key_whose_time_is_over_stays_out(
    reason: RevocationReason | None, rotation: RotationKey
) -> None:
    """But for one that was never used: its device was away for too long, that is all."""
    asking = member(group=a_group(rotation_key=rotation))
    over = known(CertificateState.SUPERSEDED)
    if reason is not None:
        over = known(CertificateState.REVOKED, revoked_at=NOW, revoked_for=reason)
    if reason is RevocationReason.NEVER_CONFIRMED:
        assert isinstance(decide(asking, asks(), over), Succeed)
    else:
        assert code(asking, asks(), over) is Code.KEY_RETIRED


def test_an_unproven_certificate_of_a_key_that_was_given_up_is_dropped() -> None:
    lost = a_certificate(serial=CertificateSerial("d8"), key_sha256=a_fingerprint("lost"))
    decision = decide(member(lost, state=DeviceState.ROTATING), asks(), None)
    assert isinstance(decision, Succeed)
    assert decision.dropped == (lost,)


@given(
    state=st.sampled_from(DeviceState),
    known_state=st.sampled_from([*CertificateState, None]),
    reason=st.sampled_from(RevocationReason),
    is_own=st.booleans(),
    is_over=st.booleans(),
    rotation=st.sampled_from(RotationKey),
)
def test_whatever_is_known_nothing_proven_is_given_out_again(
    state: DeviceState,
    known_state: CertificateState | None,
    reason: RevocationReason,
    is_own: bool,
    is_over: bool,
    rotation: RotationKey,
) -> None:
    """A repetition hands out what is unproven, live and the device's own; and what is in use is
    never dropped, so the device has an identity whatever happens next."""
    key = None
    if known_state is not None:
        key = known(
            known_state,
            device_id=DeviceId("lamp-A1" if is_own else "lamp-B2"),
            revoked_for=reason if known_state is CertificateState.REVOKED else None,
            not_after=NOW if is_over else a_certificate().not_after,
        )
    try:
        decision = decide(member(state=state, group=a_group(rotation_key=rotation)), asks(), key)
    except Refused:
        return
    assert state in (DeviceState.ACTIVE, DeviceState.ROTATING)
    if isinstance(decision, Repeat):
        assert decision.certificate.is_live(NOW)
        assert decision.certificate.state is CertificateState.ISSUED
        assert decision.certificate.device_id == "lamp-A1"
    else:
        assert IN_USE not in decision.dropped
        assert key is None or key.device_id == "lamp-A1"


HOUR = timedelta(hours=1)
STANDINGS = {
    "in use": (CertificateState.ACTIVE, {}),
    "not proven yet": (CertificateState.ISSUED, {}),
    "in its grace": (CertificateState.SUPERSEDED, {"grace_until": NOW + HOUR}),
    "at the end of its grace": (CertificateState.SUPERSEDED, {"grace_until": NOW}),
    "expired in its grace": (
        CertificateState.SUPERSEDED,
        {"grace_until": NOW + HOUR, "not_after": NOW},
    ),
    "lapsed": (CertificateState.ISSUED, {"not_after": NOW}),
    "expired": (CertificateState.ACTIVE, {"not_after": NOW}),
    "held": (CertificateState.ACTIVE, {"held_at": NOW}),
    "revoked": (CertificateState.REVOKED, {"revoked_at": NOW}),
}


@pytest.mark.parametrize("standing", STANDINGS)
def test_a_renewal_is_signed_by_a_key_that_counts_now(standing: str) -> None:
    state, fields = STANDINGS[standing]
    one = known(state, **fields)
    asking = member(one)
    is_live = standing in ("in use", "not proven yet", "in its grace")
    if is_live:
        assert signer(asking, KEY, NOW) == one
        return
    with pytest.raises(Refused) as refused:
        signer(asking, KEY, NOW)
    is_over = standing in ("expired", "held")
    invalid = Code.RENEWAL_SIGNATURE_INVALID
    assert refused.value.code is (Code.CERTIFICATE_EXPIRED if is_over else invalid)
    assert (one in signers(asking, NOW)) is is_over


def test_of_several_certificates_of_one_key_the_one_in_use_counts() -> None:
    old = known(CertificateState.SUPERSEDED, grace_until=NOW + HOUR)
    used = known(CertificateState.ACTIVE, serial=CertificateSerial("d8"))
    waiting = known(serial=CertificateSerial("d9"))
    assert signer(member(old, used, waiting), KEY, NOW) == used
    assert signer(member(old, waiting), KEY, NOW) == waiting


@pytest.mark.parametrize("state", [CertificateState.SUPERSEDED, CertificateState.ISSUED])
def test_any_other_key_than_the_one_in_use_leaves_it_some_of_the_day_s(
    state: CertificateState,
) -> None:
    other = known(state, serial=CertificateSerial("d8"), key_sha256=a_fingerprint("another"))
    asking = replace(member(other), succeeded_at=(NOW,) * SUCCESSORS_IN_A_GRACE)
    assert isinstance(decide(asking, asks(), None), Succeed)
    with pytest.raises(Refused) as refused:
        decide(asking, asks(), None, other)
    assert refused.value.code is Code.RATE_LIMITED
