"""Answers about certificates, as a relying party verifies them."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.fleet_authorities import FleetAuthorities
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.ca.ocsp import StatusAnswers
from broker.ports.registry import RegistryError
from broker.services.certificate_status import StatusService
from tests.support.desk import Desk, authority, open_desk
from tests.support.operating import NOW
from tests.support.records import a_claim_certificate, a_group


class Party:
    """Asks, and looks at what comes."""

    def __init__(self, desk: Desk, *authorities: FileAuthority | FleetAuthorities) -> None:
        self.desk = desk
        signers = [signer for each in authorities for signer in each.signers]
        self.service = StatusService(desk.registry, StatusAnswers(lambda: signers), desk.clock)

    async def ask(
        self, issuer: x509.Certificate, serial: int, nonce: bytes | None = None
    ) -> ocsp.OCSPResponse:
        builder = ocsp.OCSPRequestBuilder().add_certificate(
            FakeLeaf.of(issuer, serial), issuer, hashes.SHA256()
        )
        if nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
        answer = await self.service.answer(builder.build().public_bytes(Encoding.DER))
        return ocsp.load_der_ocsp_response(answer.der)


class FakeLeaf:
    """A certificate with a serial number of one's choice; only its names are looked at."""

    @staticmethod
    def of(issuer: x509.Certificate, serial: int) -> x509.Certificate:
        key = ec.generate_private_key(ec.SECP256R1())
        return (
            x509.CertificateBuilder()
            .issuer_name(issuer.subject)
            .subject_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(serial)
            .not_valid_before(NOW)
            .not_valid_after(NOW + timedelta(days=1))
            .sign(key, hashes.SHA256())
        )


@pytest.fixture
async def party(tmp_path: Path) -> AsyncIterator[Party]:
    async with open_desk(tmp_path) as desk:
        await desk.open_group(a_group(), a_claim_certificate(not_before=NOW), "A1")
        yield Party(desk, authority())


def issuer() -> x509.Certificate:
    return authority().signers[0].certificate


async def serial_of_a_member(party: Party) -> int:
    return int((await party.desk.join("A1")).serial, 16)


async def test_the_answer_is_signed_by_a_responder_that_the_issuer_appointed(party: Party) -> None:
    response = await party.ask(issuer(), await serial_of_a_member(party), b"nonce" * 4)
    assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
    (responder,) = response.certificates
    responder.verify_directly_issued_by(issuer())
    key = responder.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(response.signature, response.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
    purposes = responder.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.OCSP_SIGNING]
    assert not responder.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    responder.extensions.get_extension_for_class(x509.OCSPNoCheck)
    nonce = response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    assert nonce == b"nonce" * 4


async def test_the_answer_s_time_is_short(party: Party) -> None:
    response = await party.ask(issuer(), await serial_of_a_member(party))
    assert response.this_update_utc == party.desk.clock.now()
    assert response.next_update_utc == party.desk.clock.now() + timedelta(minutes=10)
    with pytest.raises(x509.ExtensionNotFound):
        response.extensions.get_extension_for_class(x509.OCSPNonce)


async def test_responders_are_replaced_before_they_expire(party: Party) -> None:
    serial = await serial_of_a_member(party)
    first = (await party.ask(issuer(), serial)).certificates
    party.desk.clock.at += timedelta(hours=23)
    assert (await party.ask(issuer(), serial)).certificates == first
    party.desk.clock.at += timedelta(minutes=51)
    answer = await party.ask(issuer(), serial)
    assert answer.certificates != first
    next_update = answer.next_update_utc
    assert next_update is not None
    assert answer.certificates[0].not_valid_after_utc > next_update


async def test_each_authority_answers_for_its_own_certificates(
    party: Party, tmp_path: Path
) -> None:
    home = MusterHome(tmp_path / "other")
    create_home(home, hosts=[], passphrase=None, now=NOW)
    other = FileAuthority.load(home)
    serial = await serial_of_a_member(party)
    newer = other.signers[0].certificate
    unknown = await party.ask(newer, serial)
    assert unknown.response_status is ocsp.OCSPResponseStatus.UNAUTHORIZED

    both = Party(party.desk, authority(), other)
    assert (await both.ask(issuer(), serial)).certificate_status is ocsp.OCSPCertStatus.GOOD
    # The same serial number of another authority is another certificate.
    answer = await both.ask(newer, serial)
    assert answer.certificate_status is ocsp.OCSPCertStatus.UNKNOWN
    answer.certificates[0].verify_directly_issued_by(newer)


async def test_a_registry_that_fails_is_a_reason_to_try_later(
    party: Party, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: object) -> None:
        raise RegistryError("registry_unavailable", "gone")

    monkeypatch.setattr(party.desk.registry, "read", fail)
    response = await party.ask(issuer(), 1)
    assert response.response_status is ocsp.OCSPResponseStatus.TRY_LATER


async def test_what_isn_t_a_question_is_malformed(party: Party) -> None:
    answer = await party.service.answer(b"what about this one?")
    response = ocsp.load_der_ocsp_response(answer.der)
    assert response.response_status is ocsp.OCSPResponseStatus.MALFORMED_REQUEST
    assert answer.next_update is None
