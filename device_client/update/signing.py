"""Who signed a file of metadata: keys, thresholds, and what to say when it isn't enough."""

import hashlib
from collections.abc import Collection, Mapping
from functools import partial
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)

from device_client.update import canonical
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.metadata import RawKeys, Role, SignedT, Unverified

PublicKey = ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey
_ECDSA_TYPES: Final = ("ecdsa", "ecdsa-sha2-nistp256")
"""The second is what older repositories, such as Sigstore's first roots, call it."""
_MIN_RSA_BITS: Final = 2048
_PSS: Final = padding.PSS(mgf=padding.MGF1(SHA256()), salt_length=padding.PSS.AUTO)


def check(
    found: Unverified[SignedT], role: Role, keys: RawKeys, revoked: Collection[str] = ()
) -> None:
    """Returns when enough different keys of the role have signed.

    A key counts once, whatever number of ids it has; one whose id isn't its hash, or of a kind that
    this program doesn't know, counts for nothing.

    Args:
        keys: where the role's keys are described.
        revoked: ids of keys that signed for the role once and mustn't any more.

    Raises:
        UpdateRefused: SIGNER_UNKNOWN, SIGNATURES_TOO_FEW or KEY_REVOKED.
    """
    counted = count(role, keys, found.signatures, found.payload)
    if counted >= role.threshold:
        return
    name = type(found.signed).__name__
    if any(keyid in revoked and keyid not in role.keyids for keyid in found.signatures):
        raise UpdateRefused(UpdateCode.KEY_REVOKED, f"{name}: signed by a key that was revoked.")
    if not counted:
        raise UpdateRefused(UpdateCode.SIGNER_UNKNOWN, f"{name}: no key that may has signed it.")
    raise UpdateRefused(
        UpdateCode.SIGNATURES_TOO_FEW,
        f"{name}: {counted} good signatures where {role.threshold} are needed.",
    )


def count(role: Role, keys: RawKeys, signatures: Mapping[str, bytes], payload: bytes) -> int:
    """How many different keys of the role have signed the payload."""
    counted = set()
    for keyid in role.keyids:
        key = read_key(keyid, keys.get(keyid))
        if key and _has_signed(key, signatures.get(keyid, b""), payload):
            counted.add(_identity(key))
    return len(counted)


def read_key(keyid: str, raw: dict[str, object] | None) -> PublicKey | None:
    """The key, or none when it's missing, of another kind, or not the one that the id names."""
    if raw is None or hashlib.sha256(canonical.encode(raw)).hexdigest() != keyid:
        return None
    match raw:
        case {"keytype": str(kind), "scheme": str(scheme), "keyval": {"public": str(public)}}:
            try:
                return _loaded(kind, scheme, public)
            except (ValueError, UnsupportedAlgorithm):
                return None
    return None


def verify(key: PublicKey, signature: bytes, payload: bytes) -> None:
    """Returns when the signature is this key's over the payload, by the one scheme of its kind.

    Raises:
        InvalidSignature: it isn't.
    """
    match key:
        case ed25519.Ed25519PublicKey():
            key.verify(signature, payload)
        case ec.EllipticCurvePublicKey():
            key.verify(signature, payload, ec.ECDSA(SHA256()))
        case rsa.RSAPublicKey():
            key.verify(signature, payload, _PSS, SHA256())


def _has_signed(key: PublicKey, signature: bytes, payload: bytes) -> bool:
    try:
        verify(key, signature, payload)
    except InvalidSignature:
        return False
    return True


def _loaded(kind: str, scheme: str, public: str) -> PublicKey | None:
    pem = partial(load_pem_public_key, public.encode())
    if (kind, scheme) == ("ed25519", "ed25519"):
        return ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
    if kind in _ECDSA_TYPES and scheme == "ecdsa-sha2-nistp256":
        key = pem()
        fits = isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1"
        return key if fits and isinstance(key, ec.EllipticCurvePublicKey) else None
    if (kind, scheme) == ("rsa", "rsassa-pss-sha256"):
        key = pem()
        return key if isinstance(key, rsa.RSAPublicKey) and key.key_size >= _MIN_RSA_BITS else None
    return None


def _identity(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
