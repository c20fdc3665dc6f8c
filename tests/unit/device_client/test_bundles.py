"""Which trust bundle may follow which, with every kind of root key."""

import base64
import dataclasses
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding

from broker.protocol import codec
from broker.protocol.messages import SignedTrustBundle, TrustBundle
from broker.protocol.statements import assignment_statement, trust_bundle_statement
from device_client import keys, signatures
from device_client.bundles import merged, successor_of
from device_client.errors import TrustRefused
from device_client.keys import KeyType, PrivateKey
from device_client.trust import TrustStore
from tests.support.device_claims import NOW, TestAuthority, name

ANCHORS = TestAuthority().pem
KEYS = {kind: keys.generate(kind) for kind in KeyType}


def root_of(key: PrivateKey) -> str:
    builder = (
        x509.CertificateBuilder(name("root"), name("root"), key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW)
        .not_valid_after(NOW.replace(year=2046))
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def known(key: PrivateKey, version: int = 3) -> TrustBundle:
    return TrustBundle(version=version, anchors=ANCHORS, root=root_of(key))


def signed(key: PrivateKey, bundle: TrustBundle) -> bytes:
    text = codec.encode(bundle).decode()
    signature = signatures.sign(key, trust_bundle_statement(text))
    return codec.encode(SignedTrustBundle(bundle=text, signature=signature))


@pytest.mark.parametrize("kind", KeyType)
def test_a_newer_bundle_that_the_root_has_signed(kind: KeyType) -> None:
    before = known(KEYS[kind])
    after = TrustBundle(version=4, anchors=ANCHORS)
    assert successor_of(before, signed(KEYS[kind], after)).version == 4
    assert successor_of(before, signed(KEYS[kind], after)).root == before.root


@pytest.mark.parametrize("kind", KeyType)
def test_another_key(kind: KeyType) -> None:
    other = keys.generate(KeyType.P384 if kind is not KeyType.P384 else KeyType.P256)
    with pytest.raises(TrustRefused, match="hasn't signed"):
        successor_of(known(KEYS[kind]), signed(other, TrustBundle(version=4, anchors=ANCHORS)))


def test_an_older_bundle() -> None:
    key = KEYS[KeyType.P256]
    with pytest.raises(TrustRefused, match="older"):
        successor_of(known(key), signed(key, TrustBundle(version=2, anchors=ANCHORS)))


def test_another_root() -> None:
    key = KEYS[KeyType.P256]
    elsewhere = TrustBundle(version=4, anchors=ANCHORS, root=root_of(KEYS[KeyType.P384]))
    with pytest.raises(TrustRefused, match="another root"):
        successor_of(known(key), signed(key, elsewhere))


def test_a_root_that_was_certified_anew_is_the_same() -> None:
    key = KEYS[KeyType.P256]
    again = TrustBundle(version=4, anchors=ANCHORS, root=root_of(key))
    before = known(key)
    assert successor_of(before, signed(key, again)).root == before.root


def test_without_a_pinned_root() -> None:
    key = KEYS[KeyType.P256]
    with pytest.raises(TrustRefused, match="no root"):
        successor_of(
            TrustBundle(version=1, anchors=ANCHORS),
            signed(key, TrustBundle(version=4, anchors=ANCHORS)),
        )


def test_a_signature_for_another_purpose() -> None:
    key = KEYS[KeyType.P256]
    text = codec.encode(TrustBundle(version=4, anchors=ANCHORS)).decode()
    misused = signatures.sign(key, assignment_statement(text))
    with pytest.raises(TrustRefused, match="hasn't signed"):
        successor_of(known(key), codec.encode(SignedTrustBundle(bundle=text, signature=misused)))


@pytest.mark.parametrize("anchors", ["", "nonsense"])
def test_anchors_that_are_none(anchors: str) -> None:
    key = KEYS[KeyType.P256]
    with pytest.raises(TrustRefused, match="anchors"):
        successor_of(known(key), signed(key, TrustBundle(version=4, anchors=anchors)))


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff"])
def test_nonsense(payload: bytes) -> None:
    with pytest.raises(TrustRefused, match="read"):
        successor_of(known(KEYS[KeyType.P256]), payload)


def test_signatures_are_base64() -> None:
    key = KEYS[KeyType.ED25519]
    text = codec.encode(TrustBundle(version=4, anchors=ANCHORS)).decode()
    cut = base64.b64encode(b"x" * 63).decode()
    with pytest.raises(TrustRefused, match="hasn't signed"):
        successor_of(known(key), codec.encode(SignedTrustBundle(bundle=text, signature=cut)))


def test_an_answer_pins_a_root_where_there_was_none() -> None:
    answered = known(KEYS[KeyType.P256])
    assert merged(TrustBundle(version=1, anchors=ANCHORS), answered) == answered


def test_an_answer_does_not_change_the_root() -> None:
    before, answered = known(KEYS[KeyType.P256]), known(KEYS[KeyType.P384], 9)
    with pytest.raises(TrustRefused, match="another root"):
        merged(before, answered)
    forgetful = dataclasses.replace(answered, root=None)
    assert merged(before, forgetful) == dataclasses.replace(answered, root=before.root)


def test_what_is_kept_counts_only_under_the_same_root(tmp_path: Path) -> None:
    store, key = TrustStore(tmp_path), KEYS[KeyType.P256]
    store.keep(known(key, 5))
    assert store.newest(known(key, 3)).version == 5
    assert store.newest(known(key, 6)).version == 6
    assert store.newest(known(KEYS[KeyType.P384], 3)).version == 3
    (tmp_path / "trust.json").write_bytes(b"damaged")
    assert store.newest(known(key, 3)).version == 3
