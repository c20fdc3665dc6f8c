"""Claim certificates, their CRL, and the bundle that a maker flashes."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.adapters.ca.bundles import make_bundle, read_trust_bundle
from broker.adapters.ca.claim_authority import (
    IssuedClaimCertificate,
    issue_claim_certificate,
    sign_claim_crl,
)
from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.home import MusterHome
from broker.core.certificate_profile import BACKDATING
from broker.core.records import RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.bundle import read_bundle, write_bundle
from broker.protocol.messages import Endpoint
from broker.protocol.names import ClaimName
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home

END = NOW + timedelta(days=100)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> MusterHome:
    return make_home(tmp_path_factory.mktemp("claims"))


@pytest.fixture(scope="module")
def issued(home: MusterHome) -> IssuedClaimCertificate:
    return issue_claim_certificate(home, ClaimName("batch_7"), END, NOW, None)


def refusal(home: MusterHome, name: str = "batch") -> AuthorityError:
    with pytest.raises(AuthorityError) as caught:
        issue_claim_certificate(home, ClaimName(name), END, NOW, None)
    assert caught.value.remedy
    return caught.value


def test_what_is_told_is_what_the_certificate_says(issued: IssuedClaimCertificate) -> None:
    certificate = x509.load_pem_x509_certificate(issued.certificate_pem.encode())
    assert certificate.subject.rfc4514_string() == "CN=batch_7"
    assert int(issued.serial, 16) == certificate.serial_number
    assert issued.serial == issued.serial.lower().lstrip("0")
    assert issued.not_before == certificate.not_valid_before_utc == NOW - BACKDATING
    assert issued.not_after == certificate.not_valid_after_utc == END
    key = load_pem_private_key(issued.key_pem.encode(), None)
    assert key.public_key() == certificate.public_key()


def test_its_key_is_not_shown(issued: IssuedClaimCertificate) -> None:
    assert "PRIVATE" not in repr(issued)


def test_each_has_a_key_of_its_own(home: MusterHome, issued: IssuedClaimCertificate) -> None:
    other = issue_claim_certificate(home, ClaimName("batch_7"), END, NOW, None)
    assert other.key_pem != issued.key_pem
    assert other.serial != issued.serial


def test_it_tells_when_it_was_cut_short(home: MusterHome) -> None:
    far = NOW + timedelta(days=99_999)
    issued = issue_claim_certificate(home, ClaimName("batch"), far, NOW, None)
    assert issued.not_after == certificate_in(home.claim.certificate).not_valid_after_utc


@pytest.mark.parametrize("name", ["", "muster-service-claim", "Muster-x", "a/b", "a b", "x" * 65])
def test_a_name_that_may_not_be_issued(home: MusterHome, name: str) -> None:
    assert refusal(home, name).code is AuthorityCode.NAME_INVALID


def test_an_end_that_has_passed(home: MusterHome) -> None:
    with pytest.raises(AuthorityError) as caught:
        issue_claim_certificate(home, ClaimName("batch"), NOW, NOW, None)
    assert caught.value.code is AuthorityCode.VALIDITY_EMPTY


def test_its_authority_may_be_locked_or_away(tmp_path: Path) -> None:
    home = make_home(tmp_path, passphrase=b"correct horse")
    assert refusal(home).code is AuthorityCode.PASSPHRASE_MISSING
    issue_claim_certificate(home, ClaimName("batch"), END, NOW, b"correct horse")
    home.claim.key.unlink()
    assert refusal(home).code is AuthorityCode.FILE_MISSING


def test_the_claim_zones_crl(home: MusterHome, issued: IssuedClaimCertificate) -> None:
    line = Revocation(issued.serial, NOW, RevocationReason.OPERATOR)
    own = x509.load_pem_x509_crl(sign_claim_crl(home, [line], 7, NOW, None))
    authority = certificate_in(home.claim.certificate)
    assert own.issuer == authority.subject
    assert own.next_update_utc == authority.not_valid_after_utc
    assert own.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    assert [entry.serial_number for entry in own] == [int(issued.serial, 16)]


def test_a_bundle_survives_its_file(home: MusterHome, issued: IssuedClaimCertificate) -> None:
    endpoint = Endpoint(host="mqtt.example.org", port=8883)
    bundle = make_bundle(issued, endpoint, read_trust_bundle(home))
    assert read_bundle(write_bundle(bundle)) == bundle
    assert bundle.claim_name == "batch_7"
    assert bundle.claim == endpoint
    assert bundle.trust_bundle.version == 1
    anchor = x509.load_pem_x509_certificate(bundle.trust_bundle.anchors.encode())
    assert anchor == certificate_in(home.infrastructure.certificate)
