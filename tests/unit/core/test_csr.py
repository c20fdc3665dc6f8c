"""Reading requests: genuine ones of every allowed kind, and everything that isn't one."""

import hashlib
import ipaddress

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from broker.core import csr
from broker.core.csr import VerifiedCsr, fingerprint_of_key, verify_csr
from broker.core.keys import KeyType
from broker.protocol import limits
from broker.protocol.codes import Code, Refused
from tests.support import csrs
from tests.support.csrs import csr_pem, der, named_csr, private_key

P256 = csrs.fresh_key()
SPKI = csrs.spki_of(P256)
CA = x509.BasicConstraints(ca=True, path_length=None)
NO_CA = x509.BasicConstraints(ca=False, path_length=None)


def key_usage(*, cert_sign: bool = False, crl_sign: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def verify_or_code(pem: str) -> VerifiedCsr | Code:
    try:
        return verify_csr(pem)
    except Refused as refused:
        return refused.code


@pytest.mark.parametrize(
    ("kind", "key_type"),
    [
        ("p256", KeyType.P256),
        ("p384", KeyType.P384),
        ("ed25519", KeyType.ED25519),
        ("rsa-3072", KeyType.RSA),
    ],
)
def test_every_allowed_kind_of_key_is_verified(kind: str, key_type: KeyType) -> None:
    key = private_key(kind)
    verified = verify_csr(csr_pem(key))
    assert verified.key_type is key_type
    assert verified.key_sha256 == hashlib.sha256(csrs.spki_of(key)).hexdigest()
    assert fingerprint_of_key(verified.public_key) == verified.key_sha256
    assert verified.names == frozenset()


@pytest.mark.parametrize(
    "kind", ["p224", "p521", "secp256k1", "ed448", "dsa", "rsa-2048", "rsa-3072-e3"]
)
def test_other_kinds_of_key_are_refused(kind: str) -> None:
    assert verify_or_code(csr_pem(private_key(kind))) is Code.KEY_NOT_ALLOWED


@pytest.mark.parametrize(
    "spki",
    [
        csrs.rsa_spki(8192),
        csrs.rsa_spki(16_384),
        csrs.rsa_spki(3072, 3),
        csrs.rsa_spki(3072, (1 << 64) | 1),
        der(0x30, der(0x30, bytes.fromhex("06032b656e")), der(3, bytes(33))),  # X25519
    ],
)
def test_a_key_is_judged_before_the_signature_is_checked(spki: bytes) -> None:
    assert verify_or_code(csrs.handmade_csr(spki)) is Code.KEY_NOT_ALLOWED


def test_a_request_for_somebody_else_s_key_is_refused() -> None:
    assert verify_or_code(csrs.handmade_csr(SPKI)) is Code.CSR_SIGNATURE_INVALID
    stranger = csrs.fresh_key()
    info = csrs.info_of(csrs.der_of(csr_pem(P256)))
    assert verify_or_code(csrs.signed_csr(info, stranger)) is Code.CSR_SIGNATURE_INVALID
    assert isinstance(verify_or_code(csrs.signed_csr(info, P256)), VerifiedCsr)


def test_a_signature_of_an_algorithm_that_isn_t_the_key_s_is_refused() -> None:
    ed25519 = csrs.spki_of(private_key("ed25519"))
    assert verify_or_code(csrs.handmade_csr(ed25519)) is Code.CSR_SIGNATURE_INVALID
    rsa = csrs.spki_of(private_key("rsa-3072"))
    assert verify_or_code(csrs.handmade_csr(rsa)) is Code.CSR_SIGNATURE_INVALID


def test_a_signature_of_an_unknown_algorithm_is_refused() -> None:
    unknown = der(0x30, bytes.fromhex("06032a0304"))
    pem = csrs.handmade_csr(SPKI, algorithm=unknown)
    assert verify_or_code(pem) is Code.CSR_SIGNATURE_INVALID


@pytest.mark.parametrize("version", [1, 2, 127])
def test_another_version_is_malformed(version: int) -> None:
    assert verify_or_code(csrs.handmade_csr(SPKI, version)) is Code.CSR_MALFORMED


@pytest.mark.parametrize(
    "spki", [der(0x30), der(0x30, der(0x30, bytes.fromhex("06032b6570")), der(3, b"\0\1"))]
)
def test_an_unreadable_key_is_malformed(spki: bytes) -> None:
    assert verify_or_code(csrs.handmade_csr(spki)) is Code.CSR_MALFORMED


def test_an_unknown_algorithm_of_key_is_refused() -> None:
    spki = der(0x30, der(0x30, bytes.fromhex("06032b6519")), der(3, bytes(33)))
    assert verify_or_code(csrs.handmade_csr(spki)) is Code.KEY_NOT_ALLOWED


@pytest.mark.parametrize(
    "extension",
    [CA, key_usage(cert_sign=True), key_usage(crl_sign=True)],
    ids=["ca", "cert-sign", "crl-sign"],
)
def test_a_request_for_an_authority_is_refused(extension: x509.ExtensionType) -> None:
    assert verify_or_code(csr_pem(P256, extensions=[extension])) is Code.CSR_CA_REQUESTED


def test_harmless_extensions_are_no_matter() -> None:
    extensions = [NO_CA, key_usage(), x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.2.3")])]
    assert verify_csr(csr_pem(P256, extensions=extensions)).names == frozenset()


def test_every_name_in_the_subject_is_collected() -> None:
    names = [
        (NameOID.COMMON_NAME, "A1"),
        (NameOID.COMMON_NAME, "B2"),
        (NameOID.USER_ID, "root"),
        (NameOID.EMAIL_ADDRESS, "a@b"),
        (NameOID.ORGANIZATION_NAME, "Lamps Ltd"),
    ]
    found = verify_csr(csr_pem(P256, names)).names
    assert {"A1", "B2"} < found
    assert len(found) == 4
    assert "Lamps Ltd" not in found


def test_every_alternative_name_is_collected() -> None:
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("fleet.example"),
            x509.UniformResourceIdentifier("urn:muster:device:x"),
            x509.RFC822Name("a@b"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "A1")])),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3")),
            x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x05\x00"),
        ]
    )
    found = verify_csr(csr_pem(P256, extensions=[names])).names
    assert {"fleet.example", "urn:muster:device:x", "a@b", "IPAddress:127.0.0.1"} < found
    assert len(found) == 7
    assert "A1" not in found  # a directory's common name isn't mistaken for the device's own


@pytest.mark.parametrize(
    ("oid", "value"),
    [
        ("2.5.29.17", b"\x30\x02\x01\x00"),  # subjectAltName: no such kind of name
        ("2.5.29.17", b"\xff"),
        ("2.5.29.19", b"\x04\x00"),  # basicConstraints: no sequence
        ("2.5.29.15", b"\x30\x00"),  # keyUsage: no bit string
        ("1.3.6.1.5.5.7.1.24", b"\x30\x03\x02\x01\x63"),  # tlsFeature 99, which nobody knows
    ],
)
def test_a_signed_request_with_an_unreadable_extension_is_malformed(oid: str, value: bytes) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier(oid), value)
    assert verify_or_code(csr_pem(P256, extensions=[extension])) is Code.CSR_MALFORMED


def test_an_extension_given_twice_is_malformed() -> None:
    once = csrs.info_of(csrs.der_of(csr_pem(P256, extensions=[NO_CA])))
    extension = der(0x30, bytes.fromhex("0603551d13"), der(0x04, der(0x30)))
    request = der(
        0x30, bytes.fromhex("06092a864886f70d01090e"), der(0x31, der(0x30, extension * 2))
    )
    info = der(0x30, der(0x02, b"\0"), der(0x30), SPKI, der(0xA0, request))
    assert verify_or_code(csrs.signed_csr(once, P256)) is not Code.CSR_MALFORMED
    assert verify_or_code(csrs.signed_csr(info, P256)) is Code.CSR_MALFORMED


@pytest.mark.parametrize(
    "pem",
    [
        "",
        "PEM",
        "é",
        "-----BEGIN CERTIFICATE REQUEST-----\n-----END CERTIFICATE REQUEST-----\n",
        csrs.pem_of(b"\x30\x00"),
        csrs.pem_of(b"\x30\x84\xff\xff\xff\xff"),
        csr_pem(P256).replace("CERTIFICATE REQUEST", "CERTIFICATE"),
        csr_pem(P256)[:-20],
        "\0" + csr_pem(P256)[1:],
    ],
)
def test_what_is_no_request_is_malformed(pem: str) -> None:
    assert verify_or_code(pem) is Code.CSR_MALFORMED


RICH = csr_pem(
    P256,
    [(NameOID.COMMON_NAME, "A1"), (NameOID.EMAIL_ADDRESS, "x")],
    [
        x509.SubjectAlternativeName([x509.DNSName("a.b"), x509.RFC822Name("a@b")]),
        NO_CA,
        key_usage(),
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
    ],
)
RICH_DER = csrs.der_of(RICH)
RICH_INFO = csrs.info_of(RICH_DER)
REFUSALS = {
    Code.CSR_MALFORMED,
    Code.CSR_SIGNATURE_INVALID,
    Code.CSR_CA_REQUESTED,
    Code.KEY_NOT_ALLOWED,
}


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << (bit % 8)
    return bytes(changed)


@given(st.integers(0, len(RICH_DER) * 8 - 1))
def test_a_flipped_bit_is_refused(bit: int) -> None:
    found = verify_or_code(csrs.pem_of(flipped(RICH_DER, bit)))
    if isinstance(found, VerifiedCsr):
        # How many of the signature's last bits are unused; where they are zero, nothing changes.
        signature = x509.load_der_x509_csr(RICH_DER).signature
        assert bit // 8 == len(RICH_DER) - len(signature) - 1
    else:
        assert found in REFUSALS


@given(st.integers(0, len(RICH_DER) - 1))
def test_a_truncated_request_is_refused(length: int) -> None:
    assert verify_or_code(csrs.pem_of(RICH_DER[:length])) is Code.CSR_MALFORMED


@given(st.lists(st.integers(0, len(RICH_INFO) * 8 - 1), min_size=1, max_size=3))
def test_whatever_is_signed_is_read_or_refused(bits: list[int]) -> None:
    """The holder of a key can sign anything; nothing of it may be taken for a failure of ours."""
    info = RICH_INFO
    for bit in bits:
        info = flipped(info, bit)
    found = verify_or_code(csrs.signed_csr(info, P256))
    assert isinstance(found, VerifiedCsr) or found in REFUSALS


@given(st.binary(max_size=200))
def test_any_der_is_refused(content: bytes) -> None:
    assert verify_or_code(csrs.pem_of(content)) is Code.CSR_MALFORMED


@given(st.text(max_size=200))
def test_any_text_is_refused(text: str) -> None:
    assert verify_or_code(text) is Code.CSR_MALFORMED


def test_the_largest_sensible_request_is_within_the_limit() -> None:
    assert len(named_csr(private_key("rsa-4096"), "x" * 64)) < limits.MAX_CSR / 4


@pytest.mark.parametrize("kind", ["p256", "rsa-3072"])
def test_hundreds_of_names_are_refused_unread(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def unread(*_: object) -> None:
        raise AssertionError("was read")

    names = [(NameOID.COMMON_NAME, "a")]
    assert isinstance(verify_or_code(csr_pem(private_key(kind), names * 40)), VerifiedCsr)
    monkeypatch.setattr(csr, "_check_signature", unread)
    monkeypatch.setattr(csr, "_names_of", unread)
    assert verify_or_code(csr_pem(private_key(kind), names * 300)) is Code.CSR_MALFORMED
