"""Questions about a certificate's status (OCSP, RFC 6960), and what the registry's record answers.

Of the profile for many clients (RFC 5019): one certificate a question, and no requestor's name or
signature is looked at. SHA-1 is still what most clients name a certificate's issuer by; it protects
nothing there.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from broker.core.lifecycle import CertificateState
from broker.core.records import Certificate, RevocationReason
from broker.protocol.names import CertificateSerial

MAX_QUESTION: Final = 2_048
"""Bytes; with the longest nonce and SHA-512 about 300."""
_MAX_NONCE: Final = 128
"""Octets (RFC 9654, 2.1)."""
_ALGORITHMS: Final = (hashes.SHA1, hashes.SHA256)
# What the library raises on what isn't a question: found by altering questions bit by bit.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    LookupError,
    NotImplementedError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


class MalformedQuestion(Exception):
    """The bytes aren't a question that is answered here; RFC 6960 has a status for that."""


@dataclass(frozen=True)
class StatusQuestion:
    """Which certificate is asked about: its issuer by two hashes, and its serial number."""

    algorithm: hashes.HashAlgorithm
    issuer_name_hash: bytes
    issuer_key_hash: bytes
    serial_number: int
    nonce: bytes | None
    """To be repeated in the answer, which is fresh then for certain."""

    @property
    def serial(self) -> CertificateSerial:
        """The serial number as the registry writes it."""
        return CertificateSerial(f"{self.serial_number:x}")


@dataclass(frozen=True)
class Good:
    """It was issued, and isn't revoked."""


@dataclass(frozen=True)
class Revoked:
    """Don't accept it; for `SUSPENDED`, not now."""

    at: datetime
    reason: RevocationReason


@dataclass(frozen=True)
class Unknown:
    """This issuer never issued it."""


Status = Good | Revoked | Unknown


def parse_question(der: bytes) -> StatusQuestion:
    """The question in a request.

    Raises:
        MalformedQuestion: it's no request, one about several certificates, one with another hash
            than SHA-1 or SHA-256, or with a nonce of no or more than 128 octets (RFC 9654, 2.1).
    """
    if len(der) > MAX_QUESTION:
        raise MalformedQuestion("too long")
    try:
        request = ocsp.load_der_ocsp_request(der)
        algorithm = request.hash_algorithm
        question = StatusQuestion(
            algorithm,
            request.issuer_name_hash,
            request.issuer_key_hash,
            request.serial_number,
            _nonce(request.extensions),
        )
    except _UNREADABLE as error:
        raise MalformedQuestion(str(error)) from error
    sizes = {len(question.issuer_name_hash), len(question.issuer_key_hash)}
    if not isinstance(algorithm, _ALGORITHMS) or sizes != {algorithm.digest_size}:
        raise MalformedQuestion("the issuer isn't named by SHA-1 or SHA-256")
    return question


def decide_status(certificate: Certificate | None) -> Status:
    """What to say of a certificate of this issuer, by its record; none when there is no record."""
    if certificate is None:
        return Unknown()
    if certificate.state is CertificateState.REVOKED:
        if certificate.revoked_at is None or certificate.revoked_for is None:
            raise ValueError("a revoked certificate has a time and a reason")
        return Revoked(certificate.revoked_at, certificate.revoked_for)
    if certificate.held_at is not None:
        return Revoked(certificate.held_at, RevocationReason.SUSPENDED)
    return Good()


def _nonce(extensions: x509.Extensions) -> bytes | None:
    try:
        nonce = extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
    except x509.ExtensionNotFound:
        return None
    if not 1 <= len(nonce) <= _MAX_NONCE:
        raise ValueError(f"a nonce of {len(nonce)} octets")
    return nonce
