"""Who is let in, as what, and with which words everybody else is turned away."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.claim_policy import AskedClaim, ClaimContext, Issue, Repeat, decide_claim
from broker.core.csr import VerifiedCsr
from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState, next_device_state
from broker.core.records import Reprovision, RevocationReason, Serials
from broker.protocol.codes import Code, Refused, public
from broker.protocol.names import DeviceId, Fingerprint, SerialNumber
from tests.support.csrs import private_key
from tests.support.records import (
    CONFIRM_WITHIN,
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)

KEY = a_fingerprint("key")
OTHER_KEY = a_fingerprint("other key")
BLOCKED = [DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED]
HOLDING = [DeviceState.PENDING, DeviceState.ACTIVE, DeviceState.ROTATING]
EMPTY = ClaimContext(
    claim=a_claim_certificate(),
    group=a_group(),
    enrolled=True,
    device=None,
    certificates=(),
    key_certificate=None,
)


def asks(
    serial: str = "A1",
    key: Fingerprint = KEY,
    key_type: KeyType = KeyType.P256,
    names: frozenset[str] = frozenset(),
    **parameters: str,
) -> AskedClaim:
    csr = VerifiedCsr(private_key("p256").public_key(), key_type, key, names, "0" * 64)
    return AskedClaim(SerialNumber(serial), csr, parameters)


def knows(**changes: Any) -> ClaimContext:
    """A registry in which the claim would be granted, but for `changes`."""
    return replace(EMPTY, **changes)


def holds(
    state: DeviceState, *certificates: Any, key: Fingerprint = KEY, **changes: Any
) -> ClaimContext:
    """A registry in which A1 has a device in this state; `certificates` are its live ones."""
    owner = [c for c in certificates if c.key_sha256 == key]
    known = {
        "device": a_device(state=state),
        "certificates": certificates,
        "key_certificate": owner[-1] if owner else None,
    }
    return knows(**(known | changes))


def decide(context: ClaimContext, asked: AskedClaim) -> Issue | Repeat:
    return decide_claim(context, asked, NOW, CONFIRM_WITHIN)


def refusal(context: ClaimContext, asked: AskedClaim) -> Refused:
    with pytest.raises(Refused) as refused:
        decide(context, asked)
    return refused.value


def code(context: ClaimContext, asked: AskedClaim) -> Code:
    return refusal(context, asked).code


def test_a_listed_serial_number_is_issued_a_certificate() -> None:
    assert decide(EMPTY, asks()) == Issue(
        a_group(), DeviceId("lamp-A1"), timedelta(days=90), is_new_member=True, lapsed=()
    )


def test_nothing_is_granted_by_an_empty_registry() -> None:
    assert code(ClaimContext(None, None, False, None, (), None), asks()) is Code.CLAIM_UNKNOWN


STRICT = {"device_name": "{model}-{serial}", "allowed_keys": frozenset({KeyType.P256})}

# Each row spoils one thing more: the refusal that comes first in the order wins over all below it.
SPOILED: list[tuple[Code, dict[str, Any], dict[str, Any]]] = [
    (Code.CLAIM_UNKNOWN, {"claim": None}, {}),
    (Code.CLAIM_REVOKED, {"claim": a_claim_certificate(revoked_at=NOW, not_after=NOW)}, {}),
    (Code.CLAIM_EXPIRED, {"claim": a_claim_certificate(not_after=NOW)}, {}),
    (Code.CLAIM_WITHOUT_GROUP, {"group": None}, {}),
    (Code.KEY_NOT_ALLOWED, {}, {"key_type": KeyType.RSA}),
    (Code.KEY_IN_USE, {"key_certificate": a_certificate(device_id=DeviceId("lamp-B2"))}, {}),
    (Code.PARAMETER_MISSING, {}, {"model": None}),
    (Code.NAME_INVALID, {}, {"model": "a/b"}),
    (Code.CSR_NAME_MISMATCH, {}, {"names": frozenset({"lamp-B2"})}),
    (Code.CLAIM_EXHAUSTED, {"claim": a_claim_certificate(claims=100)}, {}),
    (Code.GROUP_FULL, {"group": a_group(devices=100, **STRICT)}, {}),
    (Code.SERIAL_UNKNOWN, {"enrolled": False}, {}),
]


def spoiled_from(first: int) -> tuple[ClaimContext, AskedClaim]:
    """Everything from row `first` on is wrong with the claim, and nothing above it."""
    context: dict[str, Any] = {"group": a_group(**STRICT)}
    asked: dict[str, Any] = {"model": "x"}
    for _, in_registry, in_request in reversed(SPOILED[first:]):
        context |= in_registry
        asked |= in_request
    if asked["model"] is None:
        del asked["model"]
    return knows(**context), asks(**asked)


@pytest.mark.parametrize("row", range(len(SPOILED)), ids=[row[0] for row in SPOILED])
def test_refusals_come_in_their_order(row: int) -> None:
    assert code(*spoiled_from(row)) is SPOILED[row][0]


@pytest.mark.parametrize("state", BLOCKED)
def test_a_blocked_device_is_refused_before_its_name_is_looked_for(state: DeviceState) -> None:
    context = holds(state, enrolled=False)
    assert code(context, asks()) is Code.DEVICE_BLOCKED
    assert code(context, asks(names=frozenset({"x"}))) is Code.CSR_NAME_MISMATCH


def test_what_depends_on_the_serial_number_is_masked_and_reads_the_same() -> None:
    contexts = [
        knows(enrolled=False),
        holds(DeviceState.REVOKED),
        holds(DeviceState.ACTIVE, a_certificate(key_sha256=OTHER_KEY)),
    ]
    refusals = [refusal(context, asks()) for context in contexts]
    assert {r.code for r in refusals} == {
        Code.SERIAL_UNKNOWN,
        Code.DEVICE_BLOCKED,
        Code.SERIAL_TAKEN,
    }
    assert {(public(r.code), r.retry_after_s) for r in refusals} == {(Code.SERIAL_REFUSED, 900)}


@pytest.mark.parametrize("asked", [asks(), asks(model="a/b")], ids=["missing", "invalid"])
def test_a_faulty_parameter_doesn_t_tell_free_serial_numbers_from_claimed_ones(
    asked: AskedClaim,
) -> None:
    group = a_group(device_name="{model}-{serial}")
    contexts = [
        knows(group=group),
        knows(group=group, enrolled=False),
        holds(DeviceState.ACTIVE, a_certificate(key_sha256=OTHER_KEY), group=group),
        holds(DeviceState.RETIRED, group=group),
    ]
    assert len({code(context, asked) for context in contexts}) == 1


@pytest.mark.parametrize("early", [timedelta(microseconds=1), timedelta(hours=1)])
def test_a_claim_certificate_is_good_until_it_expires(early: timedelta) -> None:
    claim = a_claim_certificate(not_after=NOW + early)
    assert isinstance(decide(knows(claim=claim), asks()), Issue)


@pytest.mark.parametrize("key_type", KeyType)
def test_a_group_allows_the_types_of_key_that_it_lists(key_type: KeyType) -> None:
    group = a_group(allowed_keys=frozenset({key_type}))
    for asked in KeyType:
        context = knows(group=group)
        if asked is key_type:
            assert isinstance(decide(context, asks(key_type=asked)), Issue)
        else:
            assert f"type {key_type}." in refusal(context, asks(key_type=asked)).detail


@pytest.mark.parametrize("state", CertificateState)
def test_a_key_that_another_device_ever_had_is_refused(state: CertificateState) -> None:
    others = a_certificate(device_id=DeviceId("lamp-B2"), state=state)
    assert code(knows(key_certificate=others), asks()) is Code.KEY_IN_USE
    mine = a_device(state=DeviceState.REGISTERED)
    assert code(knows(key_certificate=others, device=mine), asks()) is Code.KEY_IN_USE


@pytest.mark.parametrize("reason", RevocationReason)
@pytest.mark.parametrize("state", [DeviceState.REGISTERED, *HOLDING])
def test_an_operator_s_revocation_takes_the_key_along(
    state: DeviceState, reason: RevocationReason
) -> None:
    """And who was reclaimed begins anew: of its keys, only those of lapsed claims still count."""
    own = a_certificate(state=CertificateState.REVOKED, revoked_at=NOW, revoked_for=reason)
    context = knows(
        device=a_device(state=state),
        key_certificate=own,
        group=a_group(reprovision=Reprovision.REPLACE),
    )
    begins_anew = state is DeviceState.REGISTERED
    barred = reason is RevocationReason.OPERATOR or (
        begins_anew and reason is not RevocationReason.NEVER_CONFIRMED
    )
    if barred:
        assert code(context, asks()) is Code.KEY_IN_USE
    else:
        assert isinstance(decide(context, asks()), Issue)


@pytest.mark.parametrize("names", [set(), {""}, {"A1"}, {"lamp-A1"}, {"A1", "lamp-A1", ""}])
def test_a_request_may_name_the_device_or_nothing(names: set[str]) -> None:
    assert isinstance(decide(EMPTY, asks(names=frozenset(names))), Issue)


@pytest.mark.parametrize("name", ["a1", "A1 ", "lamp-A2", "muster-service-claim", "DNS:A1"])
def test_a_request_for_another_name_is_refused(name: str) -> None:
    assert code(EMPTY, asks(names=frozenset({"A1", name}))) is Code.CSR_NAME_MISMATCH


def test_any_serial_number_may_claim_where_the_group_says_so() -> None:
    group = a_group(serials=Serials.ANY)
    assert isinstance(decide(knows(group=group, enrolled=False), asks()), Issue)
    assert code(holds(DeviceState.RETIRED, group=group), asks()) is Code.DEVICE_BLOCKED


# --- The same key again ---------------------------------------------------------------------------


@pytest.mark.parametrize("policy", Reprovision)
@pytest.mark.parametrize("state", HOLDING)
@pytest.mark.parametrize("proven", [CertificateState.ISSUED, CertificateState.ACTIVE])
def test_the_same_key_gets_the_same_certificate(
    policy: Reprovision, state: DeviceState, proven: CertificateState
) -> None:
    certificate = a_certificate(state=proven)
    context = holds(state, certificate, group=a_group(reprovision=policy))
    assert decide(context, asks()) == Repeat(a_device(state=state), certificate)


def test_the_same_key_is_answered_before_any_allowance_is_counted() -> None:
    context = holds(
        DeviceState.PENDING,
        a_certificate(),
        claim=a_claim_certificate(claims=100),
        group=a_group(devices=100),
    )
    assert isinstance(decide(context, asks()), Repeat)


def test_the_same_key_is_answered_even_when_its_time_to_confirm_is_past() -> None:
    late = a_certificate(confirm_by=NOW - timedelta(hours=1))
    assert isinstance(decide(holds(DeviceState.PENDING, late), asks()), Repeat)


def test_the_device_keeps_its_name_when_the_template_changes() -> None:
    group = a_group(device_name="new-{serial}", reprovision=Reprovision.REPLACE)
    context = holds(DeviceState.ACTIVE, a_certificate(), key=OTHER_KEY, group=group)
    issue = decide(context, asks(key=OTHER_KEY))
    assert isinstance(issue, Issue)
    assert issue.device_id == "lamp-A1"


def test_a_device_s_own_name_is_confirmed_to_its_own_key_only() -> None:
    """Whoever guesses at names gets the same answer whether there is such a device or not."""
    group = a_group(device_name="new-{serial}", reprovision=Reprovision.REPLACE)
    by_old_name = asks(names=frozenset({"lamp-A1"}))
    member = holds(DeviceState.ACTIVE, a_certificate(), group=group)
    assert isinstance(decide(member, by_old_name), Repeat)
    stranger = asks(key=OTHER_KEY, names=frozenset({"lamp-A1"}))
    taken = holds(DeviceState.ACTIVE, a_certificate(), key=OTHER_KEY, group=group)
    assert code(taken, stranger) is code(knows(group=group), stranger) is Code.CSR_NAME_MISMATCH


@pytest.mark.parametrize(
    ("allowance", "wanted"),
    [
        ({"claim": a_claim_certificate(claims=100)}, Code.CLAIM_EXHAUSTED),
        ({"group": a_group(devices=100)}, Code.GROUP_FULL),
    ],
)
def test_a_used_up_allowance_doesn_t_tell_serial_numbers_apart(
    allowance: dict[str, Any], wanted: Code
) -> None:
    taken = a_certificate(key_sha256=OTHER_KEY)
    free, unknown = knows(**allowance), knows(enrolled=False, **allowance)
    contexts = [free, unknown, holds(DeviceState.ACTIVE, taken, **allowance)]
    contexts.append(holds(DeviceState.REVOKED, **allowance))
    assert {code(context, asks()) for context in contexts} == {wanted}


def test_the_same_key_needs_the_claim_certificate_and_the_list_as_much_as_any() -> None:
    rows: list[tuple[dict[str, Any], Code]] = [
        ({"claim": a_claim_certificate(revoked_at=NOW)}, Code.CLAIM_REVOKED),
        ({"enrolled": False}, Code.SERIAL_UNKNOWN),
        ({"group": a_group(allowed_keys=frozenset({KeyType.RSA}))}, Code.KEY_NOT_ALLOWED),
    ]
    for spoiled, wanted in rows:
        assert code(holds(DeviceState.PENDING, a_certificate(), **spoiled), asks()) is wanted


# --- Another key, or the same one whose certificate is over ---------------------------------------

EXPIRED = {"state": CertificateState.ACTIVE, "not_after": NOW}


@pytest.mark.parametrize("state", HOLDING)
@pytest.mark.parametrize(
    ("policy", "key", "granted"),
    [
        (Reprovision.REFUSE, KEY, False),
        (Reprovision.REFUSE, OTHER_KEY, False),
        (Reprovision.SAME_KEY, KEY, True),
        (Reprovision.SAME_KEY, OTHER_KEY, False),
        (Reprovision.REPLACE, KEY, True),
        (Reprovision.REPLACE, OTHER_KEY, True),
    ],
)
def test_who_may_claim_again_when_the_certificate_has_expired(
    state: DeviceState, policy: Reprovision, key: Fingerprint, granted: bool
) -> None:
    group = a_group(reprovision=policy)
    context = holds(state, a_certificate(**EXPIRED), key=key, group=group)
    if granted:
        issue = decide(context, asks(key=key))
        assert isinstance(issue, Issue)
        assert not issue.is_new_member
        assert next_device_state(state, DeviceInput.ISSUE)
    else:
        assert code(context, asks(key=key)) is Code.SERIAL_TAKEN


@pytest.mark.parametrize("state", HOLDING)
@pytest.mark.parametrize("policy", Reprovision)
def test_who_may_claim_with_another_key_while_the_certificate_is_live(
    state: DeviceState, policy: Reprovision
) -> None:
    context = holds(state, a_certificate(), key=OTHER_KEY, group=a_group(reprovision=policy))
    if policy is Reprovision.REPLACE:
        assert isinstance(decide(context, asks(key=OTHER_KEY)), Issue)
    else:
        assert code(context, asks(key=OTHER_KEY)) is Code.SERIAL_TAKEN


@pytest.mark.parametrize("policy", Reprovision)
@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
@pytest.mark.parametrize("state", BLOCKED)
def test_a_blocked_device_stays_blocked_whatever_its_key_and_the_policy(
    policy: Reprovision, key: Fingerprint, state: DeviceState
) -> None:
    context = holds(state, a_certificate(), key=key, group=a_group(reprovision=policy))
    assert code(context, asks(key=key)) is Code.DEVICE_BLOCKED


@pytest.mark.parametrize("policy", Reprovision)
@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_a_registered_device_may_be_claimed_by_any_key(
    policy: Reprovision, key: Fingerprint
) -> None:
    """Its last certificate lapsed; the same key may come back, and gets a new certificate."""
    revoked = a_certificate(state=CertificateState.REVOKED)
    context = knows(
        device=a_device(state=DeviceState.REGISTERED),
        key_certificate=revoked if key == KEY else None,
        group=a_group(reprovision=policy),
    )
    issue = decide(context, asks(key=key))
    assert isinstance(issue, Issue)
    assert issue.is_new_member
    assert issue.device_id == "lamp-A1"


@pytest.mark.parametrize("policy", [Reprovision.REFUSE, Reprovision.SAME_KEY])
def test_a_key_whose_certificate_was_revoked_doesn_t_get_it_back(policy: Reprovision) -> None:
    context = holds(
        DeviceState.ACTIVE,
        a_certificate(key_sha256=OTHER_KEY, state=CertificateState.ACTIVE),
        key_certificate=a_certificate(state=CertificateState.REVOKED),
        group=a_group(reprovision=policy),
    )
    assert code(context, asks()) is Code.SERIAL_TAKEN


@pytest.mark.parametrize("state", [DeviceState.REGISTERED, *HOLDING])
@pytest.mark.parametrize("policy", Reprovision)
def test_a_key_that_an_operator_revoked_never_comes_back(
    state: DeviceState, policy: Reprovision
) -> None:
    barred = a_certificate(state=CertificateState.REVOKED, revoked_for=RevocationReason.OPERATOR)
    context = knows(
        device=a_device(state=state), key_certificate=barred, group=a_group(reprovision=policy)
    )
    assert code(context, asks()) is Code.KEY_IN_USE
    fresh = replace(context, key_certificate=None, device=a_device(state=DeviceState.REGISTERED))
    assert isinstance(decide(fresh, asks(key=OTHER_KEY)), Issue)


@pytest.mark.parametrize(
    ("reason", "granted"),
    [
        (None, True),
        (RevocationReason.NEVER_CONFIRMED, True),
        (RevocationReason.REPLACED, False),
        (RevocationReason.OPERATOR, False),
        (RevocationReason.RETIRED, False),
    ],
)
def test_a_reclaimed_device_begins_anew_unless_its_claim_merely_lapsed(
    reason: RevocationReason | None, granted: bool
) -> None:
    old = a_certificate(state=CertificateState.REVOKED, revoked_for=reason)
    context = knows(device=a_device(state=DeviceState.REGISTERED), key_certificate=old)
    if granted:
        assert isinstance(decide(context, asks()), Issue)
    else:
        assert code(context, asks()) is Code.KEY_IN_USE


def test_a_superseded_certificate_s_key_is_good_for_nothing_more() -> None:
    old = a_certificate(state=CertificateState.SUPERSEDED)
    context = holds(DeviceState.ACTIVE, old, group=a_group(reprovision=Reprovision.SAME_KEY))
    with pytest.raises(Refused) as refused:
        decide(context, asks())
    assert refused.value.code is Code.SERIAL_TAKEN


def test_a_new_certificate_takes_the_place_of_unproven_ones_only() -> None:
    unproven = a_certificate(key_sha256=OTHER_KEY)
    proven = a_certificate(key_sha256=OTHER_KEY, state=CertificateState.ACTIVE)
    group = a_group(reprovision=Reprovision.REPLACE)
    issue = decide(holds(DeviceState.ROTATING, proven, unproven, group=group), asks())
    assert isinstance(issue, Issue)
    assert issue.lapsed == (unproven,)


# --- Allowances -----------------------------------------------------------------------------------


@given(claims=st.integers(0, 12), max_claims=st.integers(0, 10), unproven=st.integers(0, 3))
def test_the_last_allowed_claim_is_granted_and_the_next_is_not(
    claims: int, max_claims: int, unproven: int
) -> None:
    """What takes the place of an unproven certificate counts like any other."""
    lapsing = [a_certificate(key_sha256=OTHER_KEY)] * unproven
    context = holds(
        DeviceState.PENDING,
        *lapsing,
        claim=a_claim_certificate(claims=claims, max_claims=max_claims),
        group=a_group(reprovision=Reprovision.REPLACE),
    )
    if claims < max_claims:
        assert isinstance(decide(context, asks()), Issue)
    else:
        assert code(context, asks()) is Code.CLAIM_EXHAUSTED


@given(
    devices=st.integers(0, 12),
    quota=st.integers(0, 10),
    state=st.sampled_from([None, DeviceState.REGISTERED, *HOLDING]),
)
def test_only_new_members_count_towards_the_quota(
    devices: int, quota: int, state: DeviceState | None
) -> None:
    group = a_group(devices=devices, quota=quota, reprovision=Reprovision.REPLACE)
    device = None if state is None else a_device(state=state)
    context = knows(group=group, device=device)
    if state in HOLDING or devices < quota:
        issue = decide(context, asks())
        assert isinstance(issue, Issue)
        assert issue.is_new_member is (state not in HOLDING)
    else:
        assert code(context, asks()) is Code.GROUP_FULL


@given(
    st.sampled_from(DeviceState),
    st.lists(st.sampled_from([s for s in CertificateState if s != "revoked"]), max_size=3),
    st.sampled_from(Reprovision),
    st.booleans(),
)
def test_whatever_is_granted_the_lifecycle_allows(
    state: DeviceState, states: list[CertificateState], policy: Reprovision, same_key: bool
) -> None:
    certificates = [a_certificate(state=s) for s in states]
    key = KEY if same_key else OTHER_KEY
    context = holds(state, *certificates, key=key, group=a_group(reprovision=policy))
    try:
        decision = decide(context, asks(key=key))
    except Refused:
        return
    if isinstance(decision, Issue):
        next_device_state(state, DeviceInput.ISSUE)
    else:
        assert decision.certificate.is_live(NOW)
        assert decision.certificate.key_sha256 == key


def test_waiting_is_advised_in_whole_seconds_and_never_too_few() -> None:
    with pytest.raises(Refused) as refused:
        decide_claim(knows(enrolled=False), asks(), NOW, timedelta(seconds=1.5))
    assert refused.value.retry_after_s == 2
