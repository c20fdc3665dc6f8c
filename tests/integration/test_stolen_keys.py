"""What a thief of a claim certificate, or of a device's key, makes of it on a running stack."""

import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.core.records import EventKind
from broker.protocol import codec
from broker.protocol.codes import Code
from broker.protocol.messages import ConfirmAccepted, EnrollAccepted, Rejected
from broker.protocol.statements import report_statement
from broker.protocol.topics import (
    DeviceOrigin,
    Operation,
    Outcome,
    answer_topic,
    device_topic,
)
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import act, is_admitted, is_complete
from tests.support.csrs import csr_pem, fresh_key
from tests.support.expired import expired
from tests.support.held_handshake import HeldHandshake
from tests.support.members import Holder, as_client, connected, join, prove, recover
from tests.support.peers import peer
from tests.support.signing import renewal, sign
from tests.support.stack import Plan, Stack, running_stack
from tests.support.succeeding import self_signed
from tests.support.waiting import eventually


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with running_stack(tmp_path, plan) as running:
        await running.installation.standard(["A1", "B2"])
        yield running


async def renewed(stack: Stack, holder: Holder, place: Path) -> EnrollAccepted | Rejected:
    """What the holder is answered that asks for the next certificate."""
    async with connected(stack, holder, place) as connection:
        return await connection.renew(fresh_key())


async def taken_over(stack: Stack, old: Holder, place: Path) -> Holder:
    """The next certificate of the device, asked for and proven by whoever holds the key."""
    key = fresh_key()
    async with connected(stack, old, place) as connection:
        new = old.given(key, await connection.renew(key))
    await prove(stack, new, place)
    return new


def signature_over(key: ec.EllipticCurvePrivateKey, statement: bytes) -> str:
    return base64.b64encode(sign(key, statement)).decode()


def code_of(answer: object) -> str:
    assert isinstance(answer, Rejected), answer
    return answer.code


def seen(answer: object) -> dict[str, object]:
    """All that a thief sees of a refusal, but for the id that is his own."""
    assert isinstance(answer, Rejected), answer
    read: dict[str, object] = json.loads(codec.encode(answer))
    del read["request_id"]
    return read


async def test_a_victim_s_public_certificate_tells_nothing_and_moves_nothing(
    stack: Stack, tmp_path: Path
) -> None:
    victim = await expired(stack, tmp_path, "A1")
    before = await stack.certificates(), await stack.devices()
    thief = fresh_key()
    csr = csr_pem(thief)
    report = signature_over(victim.key, report_statement(f"r\n{csr}"))
    unknown = self_signed(thief, victim.device_id)
    made = Holder(victim.device_id, thief, unknown.public_bytes(Encoding.PEM).decode())
    guesses = [
        victim.recovery(fresh_key(), signature=signature_over(thief, b"anything")),
        victim.recovery(fresh_key(), signature=report),
        victim.recovery(fresh_key(), signature=victim.recovery(fresh_key()).signature),
        made.recovery(fresh_key(), signature=signature_over(victim.key, b"anything")),
    ]
    answers = [await recover(stack, each) for each in guesses]
    assert {code_of(each) for each in answers} == {Code.RECOVERY_SIGNATURE_INVALID}
    assert all(seen(each) == seen(answers[0]) for each in answers)
    assert code_of(await recover(stack, made.recovery(fresh_key()))) == Code.RECOVERY_REFUSED
    assert (await stack.certificates(), await stack.devices()) == before
    assert isinstance(await recover(stack, victim.recovery(fresh_key())), EnrollAccepted)


async def test_who_renews_first_by_a_stolen_key_is_put_out_by_the_operator(
    stack: Stack, tmp_path: Path
) -> None:
    device = await join(stack, tmp_path, "A1")
    thief = await taken_over(stack, device, tmp_path)
    async with connected(stack, device, tmp_path) as connection:
        assert code_of(await connection.confirm(device.sha256)) == Code.CERTIFICATE_SUPERSEDED
    events = await stack.events_of(EventKind.RENEWAL_ACCEPTED, EventKind.CERTIFICATE_SUPERSEDED)
    assert {event.device_id for event in events} == {device.device_id}
    await act(stack, DeviceInput.REVOKE, device.device_id)
    assert not await is_admitted(stack, as_client(stack, thief, tmp_path))
    await act(stack, DeviceInput.RECLAIM, device.device_id)
    back = await join(stack, tmp_path, "A1")
    assert back.device_id == device.device_id
    for out in (thief, device):
        assert not await is_admitted(stack, as_client(stack, out, tmp_path))
        assert code_of(await recover(stack, out.recovery(fresh_key()))) == Code.RECOVERY_REFUSED


async def test_without_a_grace_an_old_key_doesn_t_renew_in_the_connection_that_it_has(
    stack: Stack, tmp_path: Path
) -> None:
    await stack.installation.save_group(rotation_grace=timedelta(days=1))
    old = await join(stack, tmp_path, "B2")
    # A sweep just before rests for a minute: in it the old certificate is still let in.
    await stack.installation.save_group(rotation_grace=timedelta())
    await taken_over(stack, await join(stack, tmp_path, "A1"), tmp_path)

    async def swept() -> bool:
        found = await stack.certificates_of("A1")
        return CertificateState.REVOKED in {each.state for each in found}

    await eventually(swept)
    new = await taken_over(stack, old, tmp_path)
    async with connected(stack, old, tmp_path) as connection:
        assert code_of(await connection.renew(fresh_key())) == Code.RENEWAL_SIGNATURE_INVALID
    (active,) = [
        each for each in await stack.certificates_of("B2") if each.state is CertificateState.ACTIVE
    ]
    assert active.certificate_sha256 == new.sha256


async def test_only_a_key_that_the_device_has_now_renews(stack: Stack, tmp_path: Path) -> None:
    await stack.installation.save_group(rotation_grace=timedelta())
    old, other = await join(stack, tmp_path, "A1"), await join(stack, tmp_path, "B2")
    recorded = renewal(old.key, fresh_key(), old.device_id, request_id="recorded")
    new = await taken_over(stack, old, tmp_path)
    # Only then: Mosquitto throws off by the name, which the successor has, too.
    await eventually(lambda: is_complete(stack, old.device_id))
    assert old.leaf.serial_number in stack.revoked_serials()
    before = await stack.certificates()
    good = renewal(new.key, fresh_key(), new.device_id, request_id="replayed")
    unsigned = json.loads(codec.encode(good))
    del unsigned["signature"]
    async with connected(stack, new, tmp_path) as connection:
        for key in (old.key, other.key, fresh_key()):
            answer = await connection.renew(fresh_key(), by=key)
            assert code_of(answer) == Code.RENEWAL_SIGNATURE_INVALID
        assert code_of(await connection.send_renewal(recorded)) == Code.RENEWAL_SIGNATURE_INVALID
        answer = await connection.send_renewal(json.dumps(unsigned).encode())
        assert code_of(answer) == Code.FIELD_INVALID
        assert await stack.certificates() == before
        answers = [await connection.send_renewal(good) for _ in range(2)]
    assert len({new.given(new.key, answer).chain for answer in answers}) == 1
    assert len(await stack.certificates()) == len(before) + 1
    refused = await stack.events_of(EventKind.REQUEST_REFUSED)
    assert {event.code for event in refused} == {
        Code.RENEWAL_SIGNATURE_INVALID,
        Code.FIELD_INVALID,
    }
    assert {event.device_id for event in refused} == {new.device_id}


async def test_a_handshake_held_since_the_key_was_good_renews_nothing(tmp_path: Path) -> None:
    """Mosquitto looks at its CRL in handshakes only, and lets this one in long after it's dead."""
    async with running_stack(tmp_path, Plan(BrokerKind.MOSQUITTO)) as stack:
        await stack.installation.standard(["A1"])
        await stack.installation.save_group(rotation_grace=timedelta())
        old = await join(stack, tmp_path, "A1")
        client = as_client(stack, old, tmp_path)
        async with HeldHandshake.begin(stack.ports[Zone.FLEET], client) as thief:
            new = await taken_over(stack, old, tmp_path)
            await eventually(lambda: old.leaf.serial_number in stack.revoked_serials())
            await eventually(lambda: is_complete(stack, old.device_id))
            assert not await is_admitted(stack, client)
            before = await stack.certificates()
            await thief.go_on()
            topic = device_topic(DeviceOrigin(old.device_id), Operation.RENEW)
            request = renewal(old.key, fresh_key(), old.device_id, request_id="r1")
            outcomes = [answer_topic(topic, outcome) for outcome in Outcome]
            answer = await thief.ask(topic, codec.encode(request), *outcomes)
        assert json.loads(answer.payload)["code"] == Code.RENEWAL_SIGNATURE_INVALID
        assert await stack.certificates() == before
        assert isinstance(await renewed(stack, new, tmp_path), EnrollAccepted)


async def test_an_old_key_confirms_nothing_for_the_next_one(stack: Stack, tmp_path: Path) -> None:
    """Else the device asks for it in vain, and its old certificate ends."""
    device, key = await join(stack, tmp_path, "A1"), fresh_key()
    async with connected(stack, device, tmp_path) as thief:
        new = device.given(key, await thief.renew(key))
        before = await stack.certificates()
        for by in (device.key, fresh_key()):
            answer = await thief.confirm(new.sha256, by)
            assert code_of(answer) == Code.CONFIRMATION_SIGNATURE_INVALID
        assert await stack.certificates() == before
    (refused,) = await stack.events_of(EventKind.REQUEST_REFUSED)
    assert refused.code == Code.CONFIRMATION_SIGNATURE_INVALID
    await prove(stack, new, tmp_path)


async def test_absurd_numbers_harm_nobody_else(stack: Stack, tmp_path: Path) -> None:
    hostile, other = await join(stack, tmp_path, "A1"), await join(stack, tmp_path, "B2")
    topic = device_topic(DeviceOrigin(hostile.device_id), Operation.RENEW)
    async with (
        peer(stack.ports[Zone.FLEET], as_client(stack, hostile, tmp_path)) as attacker,
        connected(stack, other, tmp_path) as connection,
    ):
        await attacker.hear(f"{topic}/rejected")
        for order in (1 << 63, 10**300, -1):
            request = {
                "request_id": "r1",
                "csr": csr_pem(fresh_key()),
                "order": order,
                "signature": "AA==",
            }
            await attacker.say(topic, json.dumps(request).encode())
            assert isinstance(await connection.confirm(other.sha256), ConfirmAccepted)
            answer = json.loads((await attacker.next(10)).payload)
            assert answer["code"] == Code.FIELD_INVALID
    assert (await stack.device("A1")).state is DeviceState.ACTIVE
