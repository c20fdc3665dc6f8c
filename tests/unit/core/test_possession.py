"""A signature proves a certificate's key, with every type of key, and nothing else proves it."""

import base64
import contextlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from broker.core.possession import signer_among, verified_holder
from broker.protocol.codes import Code, Refused
from tests.support.csrs import PrivateKey, private_key
from tests.support.records import a_certificate
from tests.support.signing import sign
from tests.support.succeeding import self_signed

STATEMENT = b"muster-recover-v1\nr1\n" + b"0" * 64
KINDS = ["p256", "p384", "ed25519", "rsa-3072"]


def pem(key: PrivateKey) -> str:
    return self_signed(key).public_bytes(Encoding.PEM).decode()


def proof(key: PrivateKey, statement: bytes = STATEMENT) -> str:
    return base64.b64encode(sign(key, statement)).decode()


def code(text: str, signature: str) -> Code:
    with pytest.raises(Refused) as refused:
        verified_holder(text, STATEMENT, signature)
    return refused.value.code


@pytest.mark.parametrize("kind", KINDS)
def test_the_key_s_own_signature_is_good(kind: str) -> None:
    key = private_key(kind)
    shown = self_signed(key)
    text = shown.public_bytes(Encoding.PEM).decode()
    found = verified_holder(text, STATEMENT, proof(key))
    assert found == shown.fingerprint(hashes.SHA256()).hex()


@pytest.mark.parametrize("kind", KINDS)
def test_any_other_signature_isn_t(kind: str) -> None:
    key = private_key(kind)
    for other in KINDS:
        if other != kind:
            assert code(pem(key), proof(private_key(other))) is Code.RECOVERY_SIGNATURE_INVALID
    of_other_words = proof(key, STATEMENT + b"0")
    assert code(pem(key), of_other_words) is Code.RECOVERY_SIGNATURE_INVALID


@pytest.mark.parametrize("signature", ["", "A", "AA==", "A" * 1024, "====", "\u00e9"])
def test_what_is_no_signature_is_refused(signature: str) -> None:
    assert code(pem(private_key("p256")), signature) is Code.RECOVERY_SIGNATURE_INVALID


@pytest.mark.parametrize("kind", ["p521", "p224", "secp256k1", "rsa-2048", "dsa"])
def test_a_kind_of_key_that_is_never_certified_is_refused_unread(kind: str) -> None:
    assert code(pem(private_key(kind)), "AA==") is Code.CERTIFICATE_MALFORMED


@given(st.text(max_size=200))
def test_what_is_no_certificate_is_refused(text: str) -> None:
    assert code(text, "AA==") is Code.CERTIFICATE_MALFORMED


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@given(st.integers(0, 5_000), st.integers(1, 255))
def test_a_damaged_certificate_proves_another_or_none(position: int, flip: int) -> None:
    """Its fingerprint is another one, and the registry doesn't know that."""
    key = private_key("p256")
    whole = self_signed(key).public_bytes(Encoding.DER)
    at = position % len(whole)
    damaged = whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
    body = base64.encodebytes(damaged).decode()
    text = f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"
    original = self_signed(key).fingerprint(hashes.SHA256()).hex()
    with contextlib.suppress(Refused):
        assert verified_holder(text, STATEMENT, proof(key)) != original


def test_of_several_certificates_the_first_is_found_by_whose_key_it_is_signed() -> None:
    keys = [private_key(kind) for kind in ("p256", "ed25519", "p256")]
    held = [a_certificate(pem=pem(key)) for key in keys]
    invalid = Code.REPORT_SIGNATURE_INVALID
    assert signer_among(held, STATEMENT, proof(keys[1]), invalid) is held[1]
    assert signer_among(held, STATEMENT, proof(keys[2]), invalid) is held[0]


def test_what_none_of_their_keys_has_signed_is_refused_as_the_caller_says() -> None:
    held = [a_certificate(pem=pem(private_key("p256"))), a_certificate(pem="no certificate")]
    for certificates in (held, []):
        with pytest.raises(Refused) as refused:
            signer_among(certificates, STATEMENT, proof(private_key("p384")), Code.BUSY)
        assert refused.value.code is Code.BUSY
