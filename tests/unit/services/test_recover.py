"""A recovery, from the request to all that one commit makes durable."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import Certificate, EventKind
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId
from broker.protocol.zones import Zone
from broker.services.device_acts import Wanted, act_on
from broker.services.problems import Problem, ProblemCode
from broker.services.recovery_approval import approve_recovery
from tests.support.csrs import PrivateKey, fresh_key, private_key
from tests.support.desk import CONFIRM_WITHIN, Desk
from tests.support.records import a_group
from tests.support.succeeding import accepted, code_of, recover, rotate, self_signed

WINDOW = timedelta(days=30)
LAMP = DeviceId("lamp-A1")


async def expired(desk: Desk, key: PrivateKey, ago: timedelta = timedelta(days=1)) -> Certificate:
    """A member whose certificate ended so long ago."""
    last = await desk.join("A1", key)
    desk.clock.at = last.not_after + ago
    await open_claims(desk)
    return last


async def open_claims(desk: Desk) -> None:
    """Claim certificates last longer than this one device was away."""
    claim = await desk.read("claim_certificate", "batch-7")
    later = replace(claim, not_after=desk.clock.at + timedelta(days=1))
    await desk.write(("save_claim_certificate", later))


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa-3072"])
async def test_the_old_key_of_any_type_gets_a_new_certificate(desk: Desk, kind: str) -> None:
    await desk.write(("save_group", a_group(allowed_keys=frozenset(KeyType))))
    old = private_key(kind)
    last = await expired(desk, old)
    reply = await recover(desk, old, fresh_key(), last)
    answer = accepted(reply)
    kept, new = await desk.certificates()
    assert kept == last
    assert (new.state, new.claim_name) == (CertificateState.ISSUED, None)
    assert answer.device_id == LAMP
    assert answer.certificate_chain.startswith(new.pem)
    assert (reply.zone, reply.topic) == (
        Zone.CLAIM,
        "muster/v1/claim/batch-7/client-1/recover/accepted",
    )
    assert (await desk.device()).state is DeviceState.ROTATING
    assert await desk.counts() == (1, 1)
    event = (await desk.events())[-1]
    assert (event.kind, event.device_id) == (EventKind.RECOVERY_ACCEPTED, LAMP)
    assert (event.claim_name, event.client_id) == ("batch-7", "client-1")
    await desk.confirm(LAMP, new.certificate_sha256)
    assert (await desk.device()).state is DeviceState.ACTIVE


async def test_a_repetition_gets_the_same_and_is_on_record(desk: Desk) -> None:
    old, key = fresh_key(), fresh_key()
    last = await expired(desk, old)
    first = accepted(await recover(desk, old, key, last))
    second = accepted(await recover(desk, old, key, last))
    assert second.certificate_chain == first.certificate_chain
    assert (await desk.events())[-1].kind is EventKind.RECOVERY_REPEATED


async def test_a_recovery_that_lapsed_leaves_the_member_as_it_was(desk: Desk) -> None:
    old, key = fresh_key(), fresh_key()
    last = await expired(desk, old)
    await recover(desk, old, key, last)
    desk.clock.at += CONFIRM_WITHIN * 2
    assert await desk.lapsing.revoke_unconfirmed() == 1
    assert (await desk.device()).state is DeviceState.ACTIVE
    assert await desk.counts() == (1, 1)
    await recover(desk, old, key, last)


async def test_the_signature_is_over_this_request_and_this_csr(desk: Desk) -> None:
    old, key = fresh_key(), fresh_key()
    last = await expired(desk, old)
    before = await desk.everything()
    other_id = recover(desk, old, key, last, request_id="another")
    assert await code_of(other_id) is Code.RECOVERY_SIGNATURE_INVALID
    by_new_key = recover(desk, key, key, last)
    assert await code_of(by_new_key) is Code.RECOVERY_SIGNATURE_INVALID
    assert await desk.everything() == before


async def test_a_home_made_certificate_of_the_right_name_is_nobody_s(desk: Desk) -> None:
    """Nor is another device's, whose key the thief has."""
    old, thief = fresh_key(), fresh_key()
    await expired(desk, old)
    theirs = await desk.join("A2", thief)
    assert await code_of(recover(desk, thief, fresh_key(), theirs)) is Code.RECOVERY_TOO_EARLY
    forged = replace(theirs, pem=self_signed(thief, LAMP).public_bytes(Encoding.PEM).decode())
    assert await code_of(recover(desk, thief, fresh_key(), forged)) is Code.RECOVERY_UNKNOWN


async def test_a_refusal_names_the_device_in_the_audit_log_alone(desk: Desk) -> None:
    old = fresh_key()
    last = await expired(desk, old, WINDOW * 2)
    with pytest.raises(Refused) as refused:
        await recover(desk, old, fresh_key(), last)
    assert refused.value.code is Code.RECOVERY_WINDOW_PASSED
    assert refused.value.serial == "A1"


async def test_an_operator_s_approval_is_good_once_and_for_a_while(desk: Desk) -> None:
    old, key = fresh_key(), fresh_key()
    last = await expired(desk, old, WINDOW * 2)
    await approve_recovery(desk.registry, desk.clock, [LAMP], timedelta(days=7))
    desk.clock.at += timedelta(days=7)
    await open_claims(desk)
    assert await code_of(recover(desk, old, key, last)) is Code.RECOVERY_WINDOW_PASSED
    (approval,) = await approve_recovery(desk.registry, desk.clock, [LAMP], timedelta(days=7))
    assert approval.until == desk.clock.at + timedelta(days=7)
    await recover(desk, old, key, last)
    new = (await desk.certificates())[-1]
    await desk.confirm(LAMP, new.certificate_sha256)
    assert await code_of(recover(desk, old, fresh_key(), last)) is Code.RECOVERY_SUPERSEDED
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.RECOVERY_APPROVED) == 2
    assert kinds.count(EventKind.RECOVERY_ACCEPTED) == 1


async def test_an_approval_dies_with_the_certificate_that_it_was_for(desk: Desk) -> None:
    """Who is revoked, reclaimed and a member again isn't let in by a key of before."""
    old = fresh_key()
    last = await expired(desk, old, WINDOW * 2)
    await approve_recovery(desk.registry, desk.clock, [LAMP], timedelta(days=7))
    now = desk.clock.at
    for act in (Wanted(DeviceInput.REVOKE), Wanted(DeviceInput.RECLAIM)):
        await desk.registry.write(
            partial(act_on, device_id=LAMP, new_id=act.act, wanted=act, now=now)
        )
    assert await code_of(recover(desk, old, fresh_key(), last)) is Code.RECOVERY_BLOCKED
    await desk.join("A1", fresh_key())
    assert await code_of(recover(desk, old, fresh_key(), last)) is Code.RECOVERY_BLOCKED


async def test_only_members_are_approved_and_all_or_none(desk: Desk) -> None:
    await desk.join("A1")
    await desk.enroll("A2")
    before = await desk.everything()
    for ids in ([LAMP, DeviceId("nobody")], [LAMP, DeviceId("lamp-A2")]):
        with pytest.raises(Problem) as problem:
            await approve_recovery(desk.registry, desk.clock, ids, timedelta(days=1))
        assert problem.value.code in (ProblemCode.DEVICE_UNKNOWN, ProblemCode.VALUE_INVALID)
    assert await desk.everything() == before


async def test_only_the_newest_proven_certificate_counts(desk: Desk) -> None:
    first, second = fresh_key(), fresh_key()
    old = await desk.join("A1", first)
    await rotate(desk, second)
    desk.clock.at = old.not_after + timedelta(days=1)
    await open_claims(desk)
    assert await code_of(recover(desk, first, fresh_key(), old)) is Code.RECOVERY_SUPERSEDED
    newest = (await desk.certificates())[-1]
    accepted(await recover(desk, second, fresh_key(), newest))


async def test_the_device_s_own_expired_key_may_not_be_certified_again(desk: Desk) -> None:
    old = fresh_key()
    last = await expired(desk, old)
    assert await code_of(recover(desk, old, old, last)) is Code.KEY_NOT_NEW
