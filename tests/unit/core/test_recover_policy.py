"""Who comes back by the key of an expired certificate, and when."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, RevocationReason
from broker.core.recover_policy import RecoverContext, decide_recover
from broker.core.successor import Member, Succeed
from broker.protocol.codes import Code, Refused, public
from broker.protocol.names import CertificateSerial, GroupName
from tests.support.csrs import private_key
from tests.support.records import (
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)

KEY = a_fingerprint("a new key")
CSR = VerifiedCsr(private_key("p256").public_key(), KeyType.P256, KEY, frozenset(), "0" * 64)
WINDOW = timedelta(days=30)
MOMENT = timedelta(microseconds=1)
LAST = a_certificate(state=CertificateState.ACTIVE, not_after=NOW - timedelta(days=1))
MEMBER = Member(a_device(state=DeviceState.ACTIVE), a_group(), (LAST,))
CONTEXT = RecoverContext(
    claim=a_claim_certificate(),
    claim_group=a_group().name,
    last=LAST,
    member=MEMBER,
    key_certificate=None,
)


def with_last(last: Certificate, **changes: Any) -> RecoverContext:
    """The device proved this one last."""
    return replace(CONTEXT, last=last, member=replace(MEMBER, certificates=(last,)), **changes)


def code(context: RecoverContext) -> Code:
    with pytest.raises(Refused) as refused:
        decide_recover(context, CSR, NOW)
    return refused.value.code


def test_an_expired_member_gets_a_new_certificate() -> None:
    assert decide_recover(CONTEXT, CSR, NOW) == Succeed(MEMBER, dropped=())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"claim": None}, Code.CLAIM_UNKNOWN),
        ({"claim": a_claim_certificate(revoked_at=NOW)}, Code.CLAIM_REVOKED),
        ({"claim": a_claim_certificate(not_after=NOW)}, Code.CLAIM_EXPIRED),
        ({"claim_group": None}, Code.CLAIM_WITHOUT_GROUP),
        ({"claim_group": GroupName("bulbs")}, Code.RECOVERY_OTHER_GROUP),
        ({"last": None, "member": None}, Code.RECOVERY_UNKNOWN),
    ],
)
def test_the_door_is_opened_by_a_live_claim_certificate_of_the_device_s_group(
    changes: dict[str, Any], expected: Code
) -> None:
    assert code(replace(CONTEXT, **changes)) is expected


def test_a_used_up_claim_certificate_opens_it_too() -> None:
    """No device is added."""
    used_up = replace(CONTEXT, claim=a_claim_certificate(max_claims=0))
    assert isinstance(decide_recover(used_up, CSR, NOW), Succeed)


@pytest.mark.parametrize("state", DeviceState)
def test_only_members_recover(state: DeviceState) -> None:
    context = replace(CONTEXT, member=replace(MEMBER, device=a_device(state=state)))
    if state in (DeviceState.ACTIVE, DeviceState.ROTATING):
        assert isinstance(decide_recover(context, CSR, NOW), Succeed)
    else:
        assert code(context) is Code.RECOVERY_BLOCKED


@pytest.mark.parametrize("reason", RevocationReason)
def test_a_revoked_certificate_s_key_is_worth_nothing(reason: RevocationReason) -> None:
    revoked = replace(LAST, state=CertificateState.REVOKED, revoked_at=NOW, revoked_for=reason)
    by_operator = reason in (RevocationReason.OPERATOR, RevocationReason.RETIRED)
    expected = Code.RECOVERY_BLOCKED if by_operator else Code.RECOVERY_SUPERSEDED
    assert code(with_last(revoked)) is expected


@pytest.mark.parametrize("state", [CertificateState.ISSUED, CertificateState.SUPERSEDED])
def test_only_the_certificate_that_was_proven_last_counts(state: CertificateState) -> None:
    assert code(with_last(replace(LAST, state=state))) is Code.RECOVERY_SUPERSEDED


@pytest.mark.parametrize(
    ("ended_ago", "expected"),
    [
        (-MOMENT, Code.RECOVERY_TOO_EARLY),
        (timedelta(), None),
        (WINDOW, None),
        (WINDOW + MOMENT, Code.RECOVERY_WINDOW_PASSED),
    ],
)
@pytest.mark.parametrize("is_approved", [False, True])
def test_the_window_begins_with_the_certificate_s_end_and_an_operator_may_overrule_it(
    ended_ago: timedelta, expected: Code | None, is_approved: bool
) -> None:
    until = NOW + MOMENT if is_approved else NOW
    context = with_last(replace(LAST, not_after=NOW - ended_ago, recovery_approved_until=until))
    if expected is None or is_approved:
        assert isinstance(decide_recover(context, CSR, NOW), Succeed)
    else:
        assert code(context) is expected


def test_a_window_of_nothing_means_never() -> None:
    context = with_last(replace(LAST, not_after=NOW))
    never = replace(MEMBER, group=a_group(recover_within=timedelta()))
    assert code(replace(context, member=never)) is Code.RECOVERY_WINDOW_PASSED


def test_too_early_says_when_to_ask_again_and_never_for_long() -> None:
    for left, wait in ((timedelta(seconds=90.5), 91), (timedelta(days=20), 3600)):
        with pytest.raises(Refused) as refused:
            decide_recover(with_last(replace(LAST, not_after=NOW + left)), CSR, NOW)
        assert refused.value.retry_after_s == wait


def test_what_was_granted_is_given_again_though_the_window_has_passed() -> None:
    granted = a_certificate(serial=CertificateSerial("d2"), key_sha256=KEY, claim_name=None)
    late = replace(LAST, not_after=NOW - WINDOW * 2)
    decision = decide_recover(with_last(late, key_certificate=granted), CSR, NOW)
    assert decision == Repeat(MEMBER.device, granted)


@given(
    state=st.sampled_from(DeviceState),
    last_state=st.sampled_from(CertificateState),
    reason=st.sampled_from(RevocationReason),
    same_group=st.booleans(),
    ended_days=st.integers(-100, 100),
    within_days=st.integers(0, 60),
    approved=st.booleans(),
)
def test_a_new_certificate_needs_all_of_it(
    state: DeviceState,
    last_state: CertificateState,
    reason: RevocationReason,
    same_group: bool,
    ended_days: int,
    within_days: int,
    approved: bool,
) -> None:
    ended = timedelta(days=ended_days)
    last = replace(
        LAST,
        state=last_state,
        revoked_for=reason if last_state is CertificateState.REVOKED else None,
        not_after=NOW - ended,
        recovery_approved_until=NOW + MOMENT if approved else None,
    )
    context = replace(
        with_last(last),
        claim_group=a_group().name if same_group else GroupName("bulbs"),
        member=Member(
            a_device(state=state),
            a_group(recover_within=timedelta(days=within_days)),
            (last,),
        ),
    )
    in_time = timedelta() <= ended <= timedelta(days=within_days) and within_days > 0
    is_due = (
        state in (DeviceState.ACTIVE, DeviceState.ROTATING)
        and last_state is CertificateState.ACTIVE
        and same_group
        and (approved or in_time)
    )
    if is_due:
        assert isinstance(decide_recover(context, CSR, NOW), Succeed)
    else:
        assert public(code(context)) in (Code.RECOVERY_REFUSED, Code.RECOVERY_TOO_EARLY)


GIVEN_UP = a_certificate(
    state=CertificateState.REVOKED,
    revoked_for=RevocationReason.ABANDONED,
    revoked_at=NOW - timedelta(hours=1),
    confirmed_at=NOW - timedelta(days=3),
    not_after=NOW + timedelta(days=60),
)


def given_up(*others: Certificate, **changes: Any) -> RecoverContext:
    """Its authority was replaced before it had moved; it may hold `others` that aren't revoked."""
    last = replace(GIVEN_UP, **changes)
    return replace(CONTEXT, last=last, member=replace(MEMBER, certificates=others))


def test_who_was_abandoned_with_its_authority_comes_back_at_once() -> None:
    assert isinstance(decide_recover(given_up(), CSR, NOW), Succeed)


def test_whoever_has_come_back_is_not_abandoned_any_more() -> None:
    assert code(given_up(a_certificate(state=CertificateState.ACTIVE))) is Code.RECOVERY_SUPERSEDED


def test_what_was_never_proven_is_nobody_s_last_certificate() -> None:
    assert code(given_up(confirmed_at=None)) is Code.RECOVERY_SUPERSEDED


def test_the_window_of_the_abandoned_begins_with_the_end_of_their_authority() -> None:
    late = given_up(revoked_at=NOW - WINDOW - MOMENT)
    assert code(late) is Code.RECOVERY_WINDOW_PASSED
