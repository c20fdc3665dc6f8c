"""Proof that somebody holds the key of a certificate: a signature over a statement.

The algorithms are those of the wire (`broker.protocol.messages.Signature`): ECDSA with the hash of
the curve's size, Ed25519, RSA as PKCS#1 v1.5 with SHA-256.
"""

import base64
import hashlib
from collections.abc import Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from broker.core.keys import KeyType, key_type_of
from broker.core.records import Certificate
from broker.protocol.codes import Code, Refused
from broker.protocol.names import Fingerprint

_HASHES: Final[dict[KeyType, hashes.HashAlgorithm]] = {
    KeyType.P256: hashes.SHA256(),
    KeyType.P384: hashes.SHA384(),
}
_UNREADABLE: Final = (ValueError, TypeError, LookupError, UnsupportedAlgorithm, x509.InvalidVersion)


def verified_holder(pem: str, statement: bytes, signature: str) -> Fingerprint:
    """The fingerprint of the certificate in `pem`, once its key has proven to have signed.

    Nothing else about the certificate is judged: anybody can make one. Both sizes are bounded by
    the caller.

    Args:
        pem: the certificate (RFC 7468).
        statement: what should have been signed.
        signature: in base64.

    Raises:
        Refused: CERTIFICATE_MALFORMED or RECOVERY_SIGNATURE_INVALID.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem.encode("ascii"))
        key = certificate.public_key()
        der = certificate.public_bytes(Encoding.DER)
    except _UNREADABLE as error:
        raise Refused(Code.CERTIFICATE_MALFORMED) from error
    key_type = key_type_of(key)
    if key_type is None:  # a huge key must cost nothing
        raise Refused(Code.CERTIFICATE_MALFORMED)
    try:
        _verify(key, key_type, base64.b64decode(signature, validate=True), statement)
    except (InvalidSignature, ValueError) as error:
        raise Refused(Code.RECOVERY_SIGNATURE_INVALID) from error
    return Fingerprint(hashlib.sha256(der).hexdigest())


def signer_among(
    certificates: Iterable[Certificate], statement: bytes, signature: str, otherwise: Code
) -> Certificate:
    """By which of these certificates' keys the statement is signed; the first, if by several's.

    Args:
        certificates: in the order in which they count.
        statement: what should have been signed.
        signature: in base64.
        otherwise: the code when it's by nobody's.

    Raises:
        Refused: `otherwise`.
    """
    for certificate in certificates:
        try:
            verified_holder(certificate.pem, statement, signature)
        except Refused:
            continue
        return certificate
    raise Refused(otherwise)


def _verify(
    key: CertificatePublicKeyTypes, key_type: KeyType, signature: bytes, statement: bytes
) -> None:
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, statement, ec.ECDSA(_HASHES[key_type]))
        case ed25519.Ed25519PublicKey():
            key.verify(signature, statement)
        case rsa.RSAPublicKey():
            key.verify(signature, statement, padding.PKCS1v15(), hashes.SHA256())
        case _:
            raise Refused(Code.CERTIFICATE_MALFORMED)
