"""A claim, from the request to all that one commit makes durable."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, Reprovision, RevocationReason, Serials
from broker.ports.authorities import IssuedCertificate
from broker.ports.registry import RegistryError
from broker.protocol.codes import Code, Refused
from broker.protocol.names import CertificateSerial, ClaimName, ClientId, DeviceId, GroupName
from broker.protocol.topics import ClaimOrigin
from broker.protocol.zones import Zone
from broker.services.enroll import EnrollService
from broker.services.issuing import Issuing
from tests.support.csrs import csr_pem, fresh_key, named_csr, private_key
from tests.support.desk import BATCH, CONFIRM_WITHIN, WELCOME, Desk, authority
from tests.support.operating import NOW
from tests.support.records import a_claim_certificate, a_device, a_group


async def change_group(desk: Desk, **changes: Any) -> None:
    await desk.write(("save_group", a_group(**changes)))


async def test_a_claim_makes_a_pending_device(desk: Desk) -> None:
    answer = await desk.enroll("A1", parameters={"model": "x9"})
    device = await desk.device("lamp-A1")
    assert answer.device_id == device.id
    assert device.state is DeviceState.PENDING
    assert (device.serial, device.registered_at, device.activated_at) == ("A1", NOW, None)
    assert device.parameters == {"model": "x9"}
    assert await desk.counts() == (1, 1)


async def test_the_certificate_is_about_the_key_that_was_sent(desk: Desk) -> None:
    key = fresh_key()
    answer = await desk.enroll("A1", key)
    leaf, issuer = x509.load_pem_x509_certificates(answer.certificate_chain.encode())
    assert leaf.public_key() == key.public_key()
    leaf.verify_directly_issued_by(issuer)
    (certificate,) = await desk.certificates()
    assert certificate.certificate_sha256 == leaf.fingerprint(hashes.SHA256()).hex()
    assert certificate.state is CertificateState.ISSUED
    assert certificate.claim_name == BATCH
    assert certificate.not_after == answer.not_after == NOW + timedelta(days=90)


async def test_the_answer_says_all_that_a_member_needs(desk: Desk) -> None:
    answer = await desk.enroll(request_id="my-id")
    assert answer.request_id == "my-id"
    assert answer.confirm_by == NOW + CONFIRM_WITHIN
    assert answer.fleet == WELCOME.fleet
    assert answer.trust_bundle == WELCOME.trust_bundle


async def test_the_answer_is_committed_for_the_asker_alone(desk: Desk) -> None:
    reply = await desk.enroll_reply()
    assert reply.zone is Zone.CLAIM
    assert reply.topic == "muster/v1/claim/batch-7/client-1/enroll/accepted"
    assert await desk.replies() == [reply]


async def test_the_claim_leaves_one_event(desk: Desk) -> None:
    await desk.enroll()
    (event,) = await desk.events()
    (certificate,) = await desk.certificates()
    assert event.kind is EventKind.CLAIM_ACCEPTED
    assert (event.device_id, event.serial_number, event.group) == ("lamp-A1", "A1", "lamps")
    assert (event.claim_name, event.client_id) == ("batch-7", "client-1")
    assert event.detail == f"certificate {certificate.serial}"


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa-3072"])
async def test_every_kind_of_key_is_certified(desk: Desk, kind: str) -> None:
    key = private_key(kind)
    answer = await desk.enroll("A1", key)
    leaf = x509.load_pem_x509_certificates(answer.certificate_chain.encode())[0]
    assert leaf.public_key() == key.public_key()


# --- Asking again ---------------------------------------------------------------------------------


async def test_the_same_key_gets_the_same_certificate_and_its_full_time_again(desk: Desk) -> None:
    key = fresh_key()
    first = await desk.enroll("A1", key)
    desk.clock.at += timedelta(minutes=10)
    second = await desk.enroll("A1", key, request_id="again")
    assert second.certificate_chain == first.certificate_chain
    assert second.request_id == "again"
    assert second.confirm_by == desk.clock.at + CONFIRM_WITHIN
    assert [e.kind for e in await desk.events()] == [
        EventKind.CLAIM_ACCEPTED,
        EventKind.CLAIM_REPEATED,
    ]
    assert len(await desk.certificates()) == 1
    assert await desk.counts() == (1, 1)


async def test_the_same_key_may_ask_from_another_connection_and_is_answered_there(
    desk: Desk,
) -> None:
    key = fresh_key()
    await desk.enroll("A1", key)
    elsewhere = ClaimOrigin(BATCH, ClientId("client-2"))
    reply = await desk.enroll_reply("A1", key, origin=elsewhere)
    assert reply.topic == "muster/v1/claim/batch-7/client-2/enroll/accepted"


async def test_a_member_that_asks_again_is_told_that_nothing_is_to_be_confirmed(desk: Desk) -> None:
    key = fresh_key()
    certificate = await desk.join("A1", key)
    desk.clock.at += timedelta(days=1)
    again = await desk.enroll("A1", key)
    assert again.confirm_by is None
    assert await desk.certificates() == [certificate]
    assert (await desk.device()).state is DeviceState.ACTIVE


async def test_fifty_identical_requests_at_once_make_one_certificate(desk: Desk) -> None:
    key = fresh_key()
    csr = csr_pem(key)
    answers = await asyncio.gather(*(desk.enroll("A1", csr=csr) for _ in range(50)))
    assert len({answer.certificate_chain for answer in answers}) == 1
    assert len(await desk.certificates()) == 1
    assert await desk.counts() == (1, 1)


async def test_of_fifty_keys_at_once_for_one_serial_number_one_wins(desk: Desk) -> None:
    asked = [desk.enroll("A1") for _ in range(50)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    refused = [a.code for a in answers if isinstance(a, Refused)]
    assert refused == [Code.SERIAL_TAKEN] * 49
    assert len(await desk.certificates()) == 1
    assert await desk.counts() == (1, 1)


async def test_one_key_at_once_for_two_serial_numbers_serves_one(desk: Desk) -> None:
    key = fresh_key()
    asked = [desk.enroll(serial, key) for serial in ("A1", "A2")]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [a.code for a in answers if isinstance(a, Refused)] == [Code.KEY_IN_USE]


async def test_a_quota_holds_when_all_ask_at_once(desk: Desk) -> None:
    await change_group(desk, quota=2)
    asked = [desk.enroll(f"A{n}") for n in range(1, 6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [a.code for a in answers if isinstance(a, Refused)] == [Code.GROUP_FULL] * 3
    assert await desk.counts() == (2, 2)


async def test_a_claim_certificate_s_allowance_holds_when_all_ask_at_once(desk: Desk) -> None:
    await desk.write(("save_claim_certificate", a_claim_certificate(not_before=NOW, max_claims=2)))
    asked = [desk.enroll(f"A{n}") for n in range(1, 6)]
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert [a.code for a in answers if isinstance(a, Refused)] == [Code.CLAIM_EXHAUSTED] * 3
    assert await desk.counts() == (2, 2)


# --- Another key ----------------------------------------------------------------------------------


async def test_replacing_an_unproven_certificate_revokes_it_and_counts_another_claim(
    desk: Desk,
) -> None:
    await change_group(desk, reprovision=Reprovision.REPLACE)
    await desk.enroll("A1")
    await desk.enroll("A1")
    first, second = await desk.certificates()
    assert first.state is CertificateState.REVOKED
    assert first.revoked_for is RevocationReason.REPLACED
    assert second.state is CertificateState.ISSUED
    assert await desk.counts() == (2, 1)
    assert await desk.read("counter", "crl.fleet.wanted") == 1
    assert (await desk.device()).state is DeviceState.PENDING


async def test_replacing_a_proven_certificate_leaves_it_in_force_until_the_new_one_is_proven(
    desk: Desk,
) -> None:
    await change_group(desk, reprovision=Reprovision.REPLACE)
    proven = await desk.join("A1")
    await desk.enroll("A1")
    old, new = await desk.certificates()
    assert old == proven
    assert (await desk.device()).state is DeviceState.ROTATING
    assert await desk.counts() == (2, 1)
    await desk.confirm("lamp-A1", new.certificate_sha256)
    old, new = await desk.certificates()
    assert (old.state, new.state) == (CertificateState.REVOKED, CertificateState.ACTIVE)
    assert (await desk.device()).state is DeviceState.ACTIVE


async def test_a_device_keeps_its_first_day_and_gets_its_newest_parameters(desk: Desk) -> None:
    await change_group(desk, reprovision=Reprovision.REPLACE)
    await desk.enroll("A1", parameters={"model": "old"})
    certificate = (await desk.certificates())[-1]
    await desk.confirm("lamp-A1", certificate.certificate_sha256)
    desk.clock.at += timedelta(hours=1)
    await desk.enroll("A1", parameters={"model": "new"})
    device = await desk.device()
    assert (device.registered_at, device.activated_at) == (NOW, NOW)
    assert device.parameters == {"model": "new"}


# --- Refusals change nothing ----------------------------------------------------------------------

SPOILED: list[tuple[dict[str, Any], Code]] = [
    ({"csr": "PEM"}, Code.CSR_MALFORMED),
    ({"csr": csr_pem(private_key("p521"))}, Code.KEY_NOT_ALLOWED),
    ({"csr": named_csr(private_key("p256"), "root")}, Code.CSR_NAME_MISMATCH),
    (
        {"csr": csr_pem(private_key("p256"), extensions=[x509.BasicConstraints(True, None)])},
        Code.CSR_CA_REQUESTED,
    ),
    ({"origin": ClaimOrigin(ClaimName("nobody"), ClientId("c"))}, Code.CLAIM_UNKNOWN),
    ({"serial": "B1"}, Code.SERIAL_UNKNOWN),
]


@pytest.mark.parametrize(("changes", "code"), SPOILED, ids=[code for _, code in SPOILED])
async def test_a_refused_claim_changes_nothing(
    desk: Desk, changes: dict[str, Any], code: Code
) -> None:
    await desk.enroll("A2")
    before = await desk.everything()
    assert await desk.refused_enroll(**changes) is code
    assert await desk.everything() == before


async def test_a_claim_certificate_without_a_group_gets_nothing(desk: Desk) -> None:
    lost = a_claim_certificate(name=ClaimName("lost"), serial=CertificateSerial("c2"))
    await desk.write(("save_claim_certificate", lost))
    origin = ClaimOrigin(ClaimName("lost"), ClientId("c"))
    assert await desk.refused_enroll(origin=origin) is Code.CLAIM_WITHOUT_GROUP


async def test_a_name_that_another_device_has_is_refused_and_nothing_changes(desk: Desk) -> None:
    """Serial number and parameter trade a letter, and the rule makes one name of both."""
    await change_group(desk, device_name="{model}{serial}", serials=Serials.ANY)
    await desk.enroll("bc", parameters={"model": "a"})
    before = await desk.everything()
    assert await desk.refused_enroll("c", parameters={"model": "ab"}) is Code.NAME_TAKEN
    assert await desk.everything() == before


async def test_a_name_that_a_device_of_another_group_has_is_refused(desk: Desk) -> None:
    others = a_group(name=GroupName("others"), claim_certificates=frozenset())
    foreign = a_device(id=DeviceId("lamp-A1"), group=GroupName("others"), registered_at=NOW)
    await desk.write(("save_group", others), ("save_device", foreign))
    assert await desk.refused_enroll("A1") is Code.NAME_TAKEN
    assert (await desk.device("lamp-A1")).group == "others"


@pytest.mark.parametrize("state", [DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED])
async def test_a_blocked_device_can_t_claim_even_with_its_own_key(
    desk: Desk, state: DeviceState
) -> None:
    key = fresh_key()
    await desk.join("A1", key)
    await desk.write(("save_device", replace(await desk.device(), state=state)))
    assert await desk.refused_enroll("A1", key) is Code.DEVICE_BLOCKED


class BrokenAuthority:
    """Fails at the last step before the commit."""

    def chain_of(self, generation: int) -> str:
        return ""

    def issue(self, *_: object) -> IssuedCertificate:
        raise RuntimeError("the key is gone")

    def sign_crl(self, *_: object) -> bytes:
        raise RuntimeError("the key is gone")


async def test_when_the_authority_fails_nothing_is_kept(desk: Desk) -> None:
    issuing = Issuing(BrokenAuthority(), WELCOME, CONFIRM_WITHIN, lambda: "id")
    broken = EnrollService(desk.registry, desk.clock, issuing)
    before = await desk.everything()
    desk.enrolling = broken
    with pytest.raises(RuntimeError, match="the key is gone"):
        await desk.enroll()
    assert await desk.everything() == before


async def test_when_the_registry_is_closed_nothing_is_promised(desk: Desk) -> None:
    await desk.registry.stop()  # type: ignore[attr-defined]
    with pytest.raises(RegistryError):
        await desk.enroll()


async def test_a_certificate_never_outlives_its_authority(desk: Desk) -> None:
    await change_group(desk, certificate_lifetime=timedelta(days=365 * 30))
    answer = await desk.enroll()
    _, issuer = x509.load_pem_x509_certificates(answer.certificate_chain.encode())
    assert answer.not_after == issuer.not_valid_after_utc
    assert authority().chain_of(1) in answer.certificate_chain


async def test_asking_again_without_end_leaves_a_bounded_log(desk: Desk) -> None:
    key = fresh_key()
    for _ in range(100):
        await desk.enroll("A1", key)
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.CLAIM_REPEATED) == 10
    desk.clock.at += timedelta(minutes=1)
    await desk.enroll("A1", key)
    await desk.enroll("A1", key)
    kinds = [event.kind for event in await desk.events()]
    assert kinds.count(EventKind.CLAIM_REPEATED) == 11
