"""Signatures of devices, and requests that carry them."""

import base64
import hashlib
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from broker.protocol.messages import ConfirmRequest, RenewRequest
from broker.protocol.statements import confirmation_statement, renewal_statement
from tests.support.csrs import PrivateKey, csr_pem, der_of


def sign(key: PrivateKey, statement: bytes) -> bytes:
    """A signature by a key of any type that Muster knows."""
    match key:
        case ec.EllipticCurvePrivateKey():
            digest = hashes.SHA384() if key.curve.name == "secp384r1" else hashes.SHA256()
            return key.sign(statement, ec.ECDSA(digest))
        case ed25519.Ed25519PrivateKey():
            return key.sign(statement)
        case rsa.RSAPrivateKey():
            return key.sign(statement, padding.PKCS1v15(), hashes.SHA256())
        case _:
            raise ValueError(key)


def confirmation(
    by: PrivateKey, device: str, certificate_sha256: str, request_id: str = "r2"
) -> ConfirmRequest:
    """A request that names the certificate, signed by the key `by`."""
    statement = confirmation_statement(request_id, device, certificate_sha256)
    signature = base64.b64encode(sign(by, statement)).decode()
    return ConfirmRequest(
        request_id=request_id, certificate_sha256=certificate_sha256, signature=signature
    )


def renewal(by: PrivateKey, key: PrivateKey, device: str, **changes: Any) -> RenewRequest:
    """A good request for a certificate for `key`, but for the fields in `changes`."""
    asked = RenewRequest(**{"csr": csr_pem(key), "signature": "AA==", **changes})
    csr_sha256 = hashlib.sha256(der_of(asked.csr)).hexdigest()
    statement = renewal_statement(asked.request_id, device, csr_sha256, asked.order)
    signed = {"signature": base64.b64encode(sign(by, statement)).decode(), **changes}
    return replace(asked, **signed)
