"""Which keys count, and which signatures: by python-tuf's signers, as repositories have them."""

import copy
from hashlib import sha256
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner, SSlibKey

from device_client.update import canonical, signing
from device_client.update.metadata import Role

PAYLOAD = b'{"signed":"this"}'
SIGNERS = {
    "ed25519": CryptoSigner.generate_ed25519(),
    "ecdsa": CryptoSigner.generate_ecdsa(),
    "rsa": CryptoSigner.generate_rsa(size=2048),
}


def count(signer: CryptoSigner, payload: bytes = PAYLOAD, **changes: Any) -> int:
    """How many signatures count, of one that the signer made over PAYLOAD."""
    made = signer.sign(PAYLOAD)
    raw = signer.public_key.to_dict() | changes
    role = Role(keyids=(made.keyid,), threshold=1)
    return signing.count(role, {made.keyid: raw}, {made.keyid: signed(made.signature)}, payload)


def signed(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("kind", SIGNERS)
def test_each_kind_counts_for_what_it_signed(kind: str) -> None:
    assert count(SIGNERS[kind]) == 1
    assert count(SIGNERS[kind], b"that") == 0


@pytest.mark.parametrize("kind", SIGNERS)
@pytest.mark.parametrize(
    "changes",
    [
        {"scheme": "ed448"},
        {"keytype": "ml-dsa"},
        {"keyval": {}},
        {"keyval": {"public": "x"}},
        {"keyval": {"public": 7}},
        {"also": "this"},
    ],
    ids=str,
)
def test_a_key_that_was_changed_is_another_or_none(kind: str, changes: dict[str, Any]) -> None:
    assert count(SIGNERS[kind], **changes) == 0


@pytest.mark.parametrize(
    ("keytype", "scheme", "public"),
    [
        ("ed25519", "ed25519", "zz"),
        ("ed25519", "ed25519", "00"),
        ("rsa", "rsassa-pss-sha256", "no pem"),
        ("ecdsa", "ecdsa-sha2-nistp256", SIGNERS["rsa"].public_key.keyval["public"]),
        ("rsa", "rsassa-pss-sha256", SIGNERS["ecdsa"].public_key.keyval["public"]),
        ("rsa", "rsa-pkcs1v15-sha256", SIGNERS["rsa"].public_key.keyval["public"]),
        ("gpg", "gpg", "x"),
    ],
)
def test_keys_that_are_none_under_their_right_id(keytype: str, scheme: str, public: str) -> None:
    key = SSlibKey("", keytype, scheme, {"public": public})
    raw = key.to_dict()
    assert signing.read_key(right_id(raw), raw) is None


def test_short_rsa_keys_count_for_nothing() -> None:
    assert count(CryptoSigner.generate_rsa(size=1024)) == 0


def test_an_older_name_of_ecdsa() -> None:
    raw = copy.deepcopy(SIGNERS["ecdsa"].public_key.to_dict())
    raw["keytype"] = "ecdsa-sha2-nistp256"
    assert signing.read_key(right_id(raw), raw) is not None


def right_id(raw: dict[str, Any]) -> str:
    return sha256(canonical.encode(raw)).hexdigest()
