"""The device's private key: made here, kept here."""

import hashlib
from enum import StrEnum

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from broker.protocol.names import Fingerprint

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class KeyType(StrEnum):
    """The keys that this agent can make."""

    P256 = "p256"
    P384 = "p384"
    ED25519 = "ed25519"
    RSA3072 = "rsa3072"


def generate(key_type: KeyType) -> PrivateKey:
    """A fresh key. RSA takes seconds on a small processor: call it outside the event loop."""
    match key_type:
        case KeyType.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyType.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyType.RSA3072:
            return rsa.generate_private_key(public_exponent=65_537, key_size=3072)


def type_of(key: PrivateKey) -> KeyType | None:
    """The key's type, or none when this agent wouldn't have made it."""
    match key:
        case ec.EllipticCurvePrivateKey():
            return {"secp256r1": KeyType.P256, "secp384r1": KeyType.P384}.get(key.curve.name)
        case ed25519.Ed25519PrivateKey():
            return KeyType.ED25519
        case rsa.RSAPrivateKey():
            return KeyType.RSA3072 if key.key_size == 3072 else None


def to_pem(key: PrivateKey) -> str:
    """The key as unencrypted PKCS#8: a device has nobody to type a passphrase."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def from_pem(pem: str) -> PrivateKey:
    """The key in `pem`.

    Raises:
        ValueError: it isn't a whole private key of a kind that this agent uses.
    """
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, PrivateKey):
        raise ValueError(f"{type(key).__name__} isn't a kind of key that this agent uses")
    return key


def fingerprint(key: CertificatePublicKeyTypes) -> Fingerprint:
    """SHA-256 of the public key's SubjectPublicKeyInfo: the same for the same key."""
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Fingerprint(hashlib.sha256(spki).hexdigest())


def signing_request(key: PrivateKey) -> str:
    """A PKCS#10 request in PEM without a name (RFC 2986): the service sets the name."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode("ascii")


def request_sha256(csr: str) -> str:
    """SHA-256 of a PKCS#10 request in DER, from its PEM."""
    der = x509.load_pem_x509_csr(csr.encode("ascii")).public_bytes(Encoding.DER)
    return hashlib.sha256(der).hexdigest()
