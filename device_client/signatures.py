"""Signatures over statements, as `broker.protocol.messages.Signature` has them."""

import base64
import binascii

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from device_client.keys import PrivateKey

_LARGER_HASH_BITS = 384


def sign(key: PrivateKey, statement: bytes) -> str:
    """The signature over the statement, in base64."""
    return base64.b64encode(_signature(key, statement)).decode("ascii")


def verify(key: CertificatePublicKeyTypes, signature: str, statement: bytes) -> None:
    """Returns when the signature over the statement is this key's.

    Raises:
        InvalidSignature: it isn't, or the key is of a kind that signs nothing here.
    """
    try:
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error as error:
        raise InvalidSignature from error
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(raw, statement, ec.ECDSA(_hash_for(key.curve)))
        case ed25519.Ed25519PublicKey():
            key.verify(raw, statement)
        case rsa.RSAPublicKey():
            key.verify(raw, statement, padding.PKCS1v15(), hashes.SHA256())
        case _:
            raise InvalidSignature


def _signature(key: PrivateKey, statement: bytes) -> bytes:
    match key:
        case ec.EllipticCurvePrivateKey():
            return key.sign(statement, ec.ECDSA(_hash_for(key.curve)))
        case ed25519.Ed25519PrivateKey():
            return key.sign(statement)
        case rsa.RSAPrivateKey():
            return key.sign(statement, padding.PKCS1v15(), hashes.SHA256())


def _hash_for(curve: ec.EllipticCurve) -> hashes.HashAlgorithm:
    return hashes.SHA384() if curve.key_size >= _LARGER_HASH_BITS else hashes.SHA256()
