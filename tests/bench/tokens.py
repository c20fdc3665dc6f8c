"""One-time tokens for step-ca's JWK provisioner (RFC 7515, RFC 7519), with ES256."""

import base64
import json
import secrets
import time
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

_NAME: Final = "bench"
_AUDIENCE: Final = "https://localhost/1.0/sign"
_VALID_S: Final = 600
_COORDINATE: Final = 32


class Provisioner:
    """Whoever may let devices in."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def public(self) -> dict[str, Any]:
        """Its entry in the server's configuration."""
        numbers = self._key.public_key().public_numbers()
        key = {
            "use": "sig",
            "kty": "EC",
            "kid": _NAME,
            "crv": "P-256",
            "alg": "ES256",
            "x": _encoded(numbers.x.to_bytes(_COORDINATE, "big")),
            "y": _encoded(numbers.y.to_bytes(_COORDINATE, "big")),
        }
        return {"type": "JWK", "name": _NAME, "key": key}

    def token(self, subject: str) -> str:
        """Lets `subject` have one certificate."""
        # Whole seconds: the running one began before a server that has just started.
        now = int(time.time())
        claims = {
            "aud": _AUDIENCE,
            "iss": _NAME,
            "sub": subject,
            "iat": now + 1,
            "nbf": now - 60,
            "exp": now + _VALID_S,
            "jti": secrets.token_hex(16),
        }
        head = {"alg": "ES256", "kid": _NAME, "typ": "JWT"}
        signed = f"{_encoded(json.dumps(head).encode())}.{_encoded(json.dumps(claims).encode())}"
        signature = self._key.sign(signed.encode(), ec.ECDSA(hashes.SHA256()))
        pair = b"".join(n.to_bytes(_COORDINATE, "big") for n in decode_dss_signature(signature))
        return f"{signed}.{_encoded(pair)}"


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
