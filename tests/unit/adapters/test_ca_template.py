"""A certificate from a template is, byte for byte, the one that the library builds."""

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.ca import template
from broker.adapters.ca.building import Signer, build_anchor
from broker.adapters.ca.key_files import SigningKey
from broker.adapters.ca.template import CertificateTemplate, built_by_library, pem_of
from broker.core.certificate_profile import Profile, Validity
from broker.protocol.names import NAME_PATTERN

LONG = Validity(datetime(2020, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC))

ISSUERS: dict[str, SigningKey] = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
    "rsa3072": rsa.generate_private_key(65_537, 3072),
}
KEYS: list[CertificatePublicKeyTypes] = [key.public_key() for key in ISSUERS.values()]
SIGNERS = {
    name: build_anchor(Profile.CLAIM_CA, "Authority", key, LONG) for name, key in ISSUERS.items()
}
TEMPLATES = {name: CertificateTemplate(signer, Profile.DEVICE) for name, signer in SIGNERS.items()}

names = st.from_regex(NAME_PATTERN, fullmatch=True)
moments = st.integers(0, 7 * 10**9).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
validities = st.builds(
    lambda begin, seconds: Validity(begin, begin + timedelta(seconds=seconds)),
    moments,
    st.integers(1, 10**9),
)


@pytest.mark.parametrize("issuer", ISSUERS)
@given(name=names, key=st.sampled_from(KEYS), valid=validities, serial=st.integers(1, 2**159 - 1))
def test_it_writes_what_the_library_writes(
    issuer: str, name: str, key: CertificatePublicKeyTypes, valid: Validity, serial: int
) -> None:
    signer = SIGNERS[issuer]
    wanted = built_by_library(signer, Profile.DEVICE, name, key, valid, serial)
    made = TEMPLATES[issuer].issue(serial, name, key, valid)
    certificate = x509.load_der_x509_certificate(made)
    assert certificate.tbs_certificate_bytes == wanted.tbs_certificate_bytes
    certificate.verify_directly_issued_by(signer.certificate)
    if issuer in ("ed25519", "rsa3072"):  # whose signatures hold nothing random
        assert made == wanted.public_bytes(Encoding.DER)


@given(size=st.integers(1, 600))
def test_pem_is_the_librarys(size: int) -> None:
    certificate = SIGNERS["p256"].certificate
    assert pem_of(certificate.public_bytes(Encoding.DER)) == certificate.public_bytes(
        Encoding.PEM
    ).decode("ascii")
    lines = pem_of(b"x" * size).splitlines()
    assert all(len(line) == 64 for line in lines[1:-2])
    assert 1 <= len(lines[-2]) <= 64


@pytest.mark.parametrize("name", ["", "a" * 65, "lamp 7", "lämp", "a\0b"])
def test_what_is_no_name_is_not_certified(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        TEMPLATES["p256"].issue(1, name, KEYS[0], LONG)


def test_a_template_that_differs_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    signer: Signer = SIGNERS["p256"]
    monkeypatch.setattr(template, "_SUBJECT_KEY", bytes.fromhex("0603551d0f"))
    with pytest.raises(ValueError, match="library"):
        CertificateTemplate(signer, Profile.DEVICE)
