"""Which public keys may go into a certificate, read off the key itself."""

from enum import StrEnum

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes


class KeyType(StrEnum):
    """The types of key that Muster knows, by the names that a group file uses."""

    P256 = "p256"
    P384 = "p384"
    ED25519 = "ed25519"
    RSA = "rsa"
    """RSA with a modulus of 3072 to 4096 bits and the public exponent 65537."""


_CURVES = {"secp256r1": KeyType.P256, "secp384r1": KeyType.P384}
_RSA_BITS = range(3072, 4097)
_RSA_EXPONENT = 65_537


def key_type_of(key: CertificatePublicKeyTypes) -> KeyType | None:
    """The key's type, or none when it is of a kind or size that is never allowed.

    RSA is bounded above as well: checking a signature of a huge modulus costs what an attacker
    would like the service to spend.
    """
    if isinstance(key, ec.EllipticCurvePublicKey):
        return _CURVES.get(key.curve.name)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return KeyType.ED25519
    if isinstance(key, rsa.RSAPublicKey) and key.key_size in _RSA_BITS:
        return KeyType.RSA if key.public_numbers().e == _RSA_EXPONENT else None
    return None
