"""What became of a certificate, for whoever asks (OCSP, RFC 6960 and RFC 5019)."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.ocsp import OCSPResponseBuilder, OCSPResponseStatus

from broker.core.ocsp import MalformedQuestion, StatusQuestion, decide_status, parse_question
from broker.core.records import Certificate
from broker.ports.authorities import StatusAuthority
from broker.ports.clock import Clock
from broker.ports.registry import Registry, RegistryError

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StatusAnswer:
    """An OCSP response in DER."""

    der: bytes
    this_update: datetime | None = None
    next_update: datetime | None = None
    """Until when it may be relied on; none when it says nothing about a certificate."""


def _failure(status: OCSPResponseStatus) -> StatusAnswer:
    return StatusAnswer(OCSPResponseBuilder.build_unsuccessful(status).public_bytes(Encoding.DER))


MALFORMED: Final = _failure(OCSPResponseStatus.MALFORMED_REQUEST)
UNAUTHORIZED: Final = _failure(OCSPResponseStatus.UNAUTHORIZED)
"""What a responder says that doesn't speak for the issuer (RFC 5019, 2.2.3)."""
TRY_LATER: Final = _failure(OCSPResponseStatus.TRY_LATER)


class StatusService:
    """Answers from the registry, so a revocation is seen at once."""

    def __init__(self, registry: Registry, authority: StatusAuthority, clock: Clock) -> None:
        self._registry = registry
        self._authority = authority
        self._clock = clock

    async def answer(self, request: bytes) -> StatusAnswer:
        """The response to an OCSP request in DER, whatever it is. Raises nothing but cancellation
        and what is a mistake of ours."""
        try:
            question = parse_question(request)
        except MalformedQuestion:
            return MALFORMED
        issuer = self._authority.issuer(question)
        if issuer is None:
            return UNAUTHORIZED
        try:
            return await self._answer(question, issuer)
        except RegistryError as error:
            _log.warning("status_not_read", code=error.code, error=str(error))
            return TRY_LATER

    async def _answer(self, question: StatusQuestion, issuer: x509.Certificate) -> StatusAnswer:
        found = await self._registry.read(lambda tx: tx.certificate_by_serial(question.serial))
        if found is not None and not _is_of(found, issuer):
            found = None
        signed = self._authority.sign(question, decide_status(found), self._clock.now())
        return StatusAnswer(signed.der, signed.this_update, signed.next_update)


def _is_of(certificate: Certificate, issuer: x509.Certificate) -> bool:
    """Serial numbers are unique for one issuer only; authorities' names differ by their keys."""
    return x509.load_pem_x509_certificate(certificate.pem.encode()).issuer == issuer.subject
