"""What every issuing authority keeps to, whatever holds its key."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.file_authority import FileAuthority
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.core.records import RevocationReason
from broker.ports.authorities import IssuingAuthority, Revocation
from broker.protocol.names import NAME_PATTERN, CertificateSerial, DeviceId

NOW = datetime(2026, 5, 1, 12, 0, 0, 654_321, tzinfo=UTC)
DAY = timedelta(days=1)
LAMP = DeviceId("lamp_7")

KEYS: dict[str, CertificatePublicKeyTypes] = {
    "p256": ec.generate_private_key(ec.SECP256R1()).public_key(),
    "p384": ec.generate_private_key(ec.SECP384R1()).public_key(),
    "ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
    "rsa3072": rsa.generate_private_key(65_537, 3072).public_key(),
}
KEY = KEYS["p256"]


@dataclass(frozen=True)
class Case:
    """An authority, and the anchor by which its certificates are judged."""

    authority: IssuingAuthority
    anchor: x509.Certificate

    @property
    def own(self) -> x509.Certificate:
        """The certificate of the authority itself."""
        return x509.load_pem_x509_certificate(self.authority.chain_of(1).encode("ascii"))


def file_authority(folder: Path, passphrase: bytes | None) -> Case:
    home = MusterHome(folder / "home")
    create_home(home, hosts=[], passphrase=passphrase, now=NOW)
    anchor = x509.load_pem_x509_certificate(home.root.certificate.read_bytes())
    return Case(FileAuthority.load(home, passphrase), anchor)


AUTHORITIES: dict[str, Callable[[Path], Case]] = {
    "file": lambda folder: file_authority(folder, None),
    "encrypted file": lambda folder: file_authority(folder, b"correct horse"),
}


@pytest.fixture(scope="module", params=AUTHORITIES)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return AUTHORITIES[request.param](tmp_path_factory.mktemp("authority"))


def parse(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode("ascii"))


def crls_in(pem: bytes) -> list[x509.CertificateRevocationList]:
    end = b"-----END X509 CRL-----\n"
    return [x509.load_pem_x509_crl(part + end) for part in pem.split(end)[:-1]]


@pytest.mark.parametrize("kind", KEYS)
def test_what_it_issues_leads_to_the_anchor(case: Case, kind: str) -> None:
    issued = case.authority.issue(LAMP, KEYS[kind], NOW, NOW + DAY)
    verifier = PolicyBuilder().store(Store([case.anchor])).time(NOW).build_client_verifier()
    chain = x509.load_pem_x509_certificates(case.authority.chain_of(1).encode("ascii"))
    found = verifier.verify(parse(issued.pem), chain)
    assert [name.value for name in found.subjects or ()] == ["urn:muster:device:lamp_7"]
    assert parse(issued.pem).public_key() == KEYS[kind]


def test_it_issues_no_servers(case: Case) -> None:
    issued = case.authority.issue(DeviceId("localhost"), KEY, NOW, NOW + DAY)
    policy = PolicyBuilder().store(Store([case.anchor])).time(NOW)
    with pytest.raises(VerificationError):
        policy.build_server_verifier(x509.DNSName("localhost")).verify(
            parse(issued.pem), [case.own]
        )


def test_the_chain_ends_below_the_anchor(case: Case) -> None:
    chain = x509.load_pem_x509_certificates(case.authority.chain_of(1).encode("ascii"))
    chain[-1].verify_directly_issued_by(case.anchor)
    assert case.anchor not in chain


@settings(
    max_examples=50,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.from_regex(NAME_PATTERN),
    begin=st.integers(-600, 86_400 * 2000),
    length=st.integers(3600, 86_400 * 9000),
    fraction=st.integers(0, 999_999),
)
def test_what_it_says_is_what_it_issued(
    case: Case, name: str, begin: int, length: int, fraction: int
) -> None:
    not_before = NOW.replace(microsecond=fraction) + timedelta(seconds=begin)
    not_after = not_before + timedelta(seconds=length)
    issued = case.authority.issue(DeviceId(name), KEY, not_before, not_after)
    certificate = parse(issued.pem)
    assert certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value == name
    assert len(list(certificate.subject)) == 1
    assert issued.serial == f"{certificate.serial_number:x}"
    assert issued.certificate_sha256 == certificate.fingerprint(hashes.SHA256()).hex()
    assert issued.not_before == certificate.not_valid_before_utc
    assert issued.not_after == certificate.not_valid_after_utc
    own = case.own
    assert issued.not_before == max(not_before.replace(microsecond=0), own.not_valid_before_utc)
    assert issued.not_after == min(not_after.replace(microsecond=0), own.not_valid_after_utc)


def test_serials_are_long_positive_and_never_twice_the_same(case: Case) -> None:
    serials = [int(case.authority.issue(LAMP, KEY, NOW, NOW + DAY).serial, 16) for _ in range(200)]
    assert len(set(serials)) == 200
    # At most 20 octets with the sign (RFC 5280, 4.1.2.2), and all of them used.
    assert all(serial > 0 for serial in serials)
    assert 150 < max(serial.bit_length() for serial in serials) <= 159


def test_nothing_is_issued_past_its_own_end(case: Case) -> None:
    late = case.own.not_valid_after_utc + DAY
    with pytest.raises(AuthorityError, match="outside the validity") as caught:
        case.authority.issue(LAMP, KEY, late, late + DAY)
    assert caught.value.remedy


def test_a_crl_names_what_was_revoked_and_why(case: Case) -> None:
    flags = {
        RevocationReason.NEVER_CONFIRMED: x509.ReasonFlags.cessation_of_operation,
        RevocationReason.REPLACED: x509.ReasonFlags.superseded,
        RevocationReason.OPERATOR: x509.ReasonFlags.privilege_withdrawn,
        RevocationReason.RETIRED: x509.ReasonFlags.cessation_of_operation,
        RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
        RevocationReason.ABANDONED: x509.ReasonFlags.cessation_of_operation,
        RevocationReason.SUSPENDED: x509.ReasonFlags.certificate_hold,
    }
    revoked = {
        reason: case.authority.issue(LAMP, KEY, NOW, NOW + DAY).serial
        for reason in RevocationReason
    }
    lines = [Revocation(serial, NOW, reason) for reason, serial in revoked.items()]
    crl = crls_in(case.authority.sign_crl(lines, 5, NOW))[0]
    assert {
        (
            f"{entry.serial_number:x}",
            entry.extensions.get_extension_for_class(x509.CRLReason).value.reason,
            entry.revocation_date_utc,
        )
        for entry in crl
    } == {(revoked[why], flags[why], NOW.replace(microsecond=0)) for why in RevocationReason}


def test_a_crl_is_signed_numbered_and_in_force(case: Case) -> None:
    crl = crls_in(case.authority.sign_crl([], 2**64, NOW))[0]
    key = case.own.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert crl.is_signature_valid(key)
    assert crl.issuer == case.own.subject
    assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 2**64
    authority_key = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own_key = case.own.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert authority_key.key_identifier == own_key.digest
    assert crl.next_update_utc is not None
    # A broker whose clock is a little off must not lock everybody out.
    assert crl.last_update_utc <= NOW - timedelta(minutes=1)
    assert crl.next_update_utc >= NOW + 2 * DAY


def test_the_crl_file_holds_a_list_of_the_authority_s_own_and_no_other(case: Case) -> None:
    lists = crls_in(case.authority.sign_crl([], 1, NOW))
    assert [crl.issuer for crl in lists] == [case.own.subject]


def test_a_long_crl_holds_each_line_once(case: Case) -> None:
    lines = [
        Revocation(CertificateSerial(f"{serial:x}"), NOW, RevocationReason.REPLACED)
        for serial in range(1, 20_001)
    ]
    crl = crls_in(case.authority.sign_crl(lines, 1, NOW))[0]
    assert sorted(entry.serial_number for entry in crl) == list(range(1, 20_001))
