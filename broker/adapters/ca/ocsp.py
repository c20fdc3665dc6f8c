"""Answers about certificates' status (OCSP, RFC 6960), signed by a responder that each issuing
authority appoints (docs/adr/0016-http-by-starlette-and-uvicorn.md).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.adapters.ca.building import Signer, authority_key, common_name, signature_hash
from broker.adapters.ca.crl import reason_flag
from broker.core.certificate_profile import BACKDATING
from broker.core.ocsp import Good, Revoked, Status, StatusQuestion, Unknown
from broker.ports.authorities import SignedStatus

RESPONDER_NAME: Final = "muster-ocsp"
"""Reserved, as every name that begins so: no device is called by it."""
_ANSWER_LIFETIME: Final = timedelta(minutes=10)
_RESPONDER_LIFETIME: Final = timedelta(days=1)
"""Short, because nobody can revoke it (RFC 6960, 4.2.2.2.1)."""
_WORDS: Final[dict[type[Status], ocsp.OCSPCertStatus]] = {
    Good: ocsp.OCSPCertStatus.GOOD,
    Revoked: ocsp.OCSPCertStatus.REVOKED,
    Unknown: ocsp.OCSPCertStatus.UNKNOWN,
}
_KEY_USE: Final = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=False,
    crl_sign=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class _Responder:
    """Speaks for one authority; its key never leaves memory."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    def covers(self, now: datetime) -> bool:
        """Whether an answer that is signed now is within its life."""
        valid = self.certificate
        return valid.not_valid_before_utc <= now < valid.not_valid_after_utc - _ANSWER_LIFETIME


class StatusAnswers:
    """Signs for the operational authorities; meets `broker.ports.authorities.StatusAuthority`."""

    def __init__(self, signers: Callable[[], Sequence[Signer]]) -> None:
        """`signers` gives the authorities that count now, however many."""
        self._signers = signers
        self._responders: dict[bytes, _Responder] = {}

    def issuer(self, question: StatusQuestion) -> x509.Certificate | None:
        """The authority that the question names by the hashes of its name and its key."""
        found = self._signer(question)
        return None if found is None else found.certificate

    def sign(self, question: StatusQuestion, status: Status, now: datetime) -> SignedStatus:
        """The answer to a question about an authority that `issuer` found; takes some 0.2 ms.

        Raises:
            LookupError: the authority counts no longer.
        """
        signer = self._signer(question)
        if signer is None:
            raise LookupError("no such authority")
        now = now.replace(microsecond=0)
        responder = self._responder(signer, now)
        next_update = now + _ANSWER_LIFETIME
        builder = _answered(question, status, now, next_update)
        builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, responder.certificate)
        builder = builder.certificates([responder.certificate])
        if question.nonce is not None:
            builder = builder.add_extension(x509.OCSPNonce(question.nonce), critical=False)
        answer = builder.sign(responder.key, hashes.SHA256())
        return SignedStatus(answer.public_bytes(Encoding.DER), now, next_update)

    def _signer(self, question: StatusQuestion) -> Signer | None:
        wanted = (question.issuer_name_hash, question.issuer_key_hash)
        for signer in self._signers():
            if _hashes(signer.certificate, type(question.algorithm)) == wanted:
                return signer
        return None

    def _responder(self, signer: Signer, now: datetime) -> _Responder:
        authority = signer.certificate.fingerprint(hashes.SHA256())
        responder = self._responders.get(authority)
        if responder is None or not responder.covers(now):
            responder = self._responders[authority] = _appointed(signer, now)
        return responder


def _answered(
    question: StatusQuestion, status: Status, now: datetime, next_update: datetime
) -> ocsp.OCSPResponseBuilder:
    revoked = status if isinstance(status, Revoked) else None
    return ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=question.issuer_name_hash,
        issuer_key_hash=question.issuer_key_hash,
        serial_number=question.serial_number,
        algorithm=question.algorithm,
        cert_status=_WORDS[type(status)],
        this_update=now,
        next_update=next_update,
        revocation_time=None if revoked is None else revoked.at,
        revocation_reason=None if revoked is None else reason_flag(revoked.reason),
    )


def _appointed(signer: Signer, now: datetime) -> _Responder:
    """A responder with a fresh key: it may sign answers for `signer`, and nothing else."""
    key = ec.generate_private_key(ec.SECP256R1())
    no_check = x509.OCSPNoCheck()
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    builder = x509.CertificateBuilder(
        issuer_name=signer.certificate.subject,
        subject_name=common_name(RESPONDER_NAME),
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - BACKDATING,
        not_valid_after=min(now + _RESPONDER_LIFETIME, signer.certificate.not_valid_after_utc),
        extensions=[
            x509.Extension(
                x509.BasicConstraints.oid, True, x509.BasicConstraints(ca=False, path_length=None)
            ),
            x509.Extension(x509.KeyUsage.oid, True, _KEY_USE),
            x509.Extension(purposes.oid, False, purposes),
            x509.Extension(no_check.oid, False, no_check),
            x509.Extension(identifier.oid, False, identifier),
            authority_key(signer.certificate),
        ],
    )
    return _Responder(builder.sign(signer.key, signature_hash(signer.key)), key)


@lru_cache(maxsize=32)
def _hashes(issuer: x509.Certificate, algorithm: type[hashes.HashAlgorithm]) -> tuple[bytes, bytes]:
    """Of its name and its key, as a question about its certificates has them (RFC 6960, 4.1.1)."""
    digest: hashes.HashAlgorithm = algorithm()
    name = hashes.Hash(digest)
    name.update(issuer.subject.public_bytes())
    # A question about the authority itself: its issuer's name in it, but of its own key.
    question = ocsp.OCSPRequestBuilder().add_certificate(issuer, issuer, digest).build()
    return name.finalize(), question.issuer_key_hash
