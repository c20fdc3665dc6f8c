"""Devices to be: keys and requests, made before any clock runs."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broker.protocol.messages import EnrollRequest
from broker.protocol.names import ClaimName, ClientId
from broker.protocol.topics import ClaimOrigin
from tests.support.csrs import fresh_key, named_csr

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Device:
    """A device that hasn't asked yet."""

    origin: ClaimOrigin
    request: EnrollRequest
    key: ec.EllipticCurvePrivateKey

    @property
    def key_pem(self) -> str:
        """Its private key (PKCS#8)."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(
            "ascii"
        )


def make_devices(claim: ClaimName, count: int) -> list[Device]:
    """Devices with keys and serial numbers that no others of this run have."""
    return list(itertools.islice(_devices(claim), count))


def _devices(claim: ClaimName) -> Iterator[Device]:
    for number in _numbers:
        serial = f"B{number:08d}"
        key = fresh_key()
        csr = named_csr(key, serial)
        request = EnrollRequest(request_id=f"request-{number:016d}", serial=serial, csr=csr)
        yield Device(ClaimOrigin(claim, ClientId(serial)), request, key)
