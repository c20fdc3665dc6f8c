"""What signs certificates, CRLs and status answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from broker.core.ca_rollover import FIRST_GENERATION, InForce
from broker.core.ocsp import Status, StatusQuestion
from broker.core.records import (
    RevocationReason,
)
from broker.protocol.names import (
    CertificateSerial,
    DeviceId,
    Fingerprint,
)


@dataclass(frozen=True)
class IssuedCertificate:
    """What an issuing authority made."""

    pem: str
    serial: CertificateSerial
    certificate_sha256: Fingerprint
    not_before: datetime
    not_after: datetime
    generation: int = FIRST_GENERATION
    """Which operational authority made it."""


class Revocation(NamedTuple):
    """One line of a CRL; a tuple, because a CRL may have a hundred thousand."""

    serial: CertificateSerial
    revoked_at: datetime
    reason: RevocationReason
    device_id: DeviceId | None = None
    """Whose it was; none when it isn't a device's."""
    generation: int = FIRST_GENERATION
    """Which operational authority issued it, if one did."""


class IssuingAuthority(Protocol):
    """Signs operational certificates and their CRL."""

    def chain_of(self, generation: int) -> str:
        """What a device sends after a certificate of this authority: the issuing CA's, in PEM;
        empty for one that isn't trusted."""

    def issue(
        self,
        name: DeviceId,
        key: CertificatePublicKeyTypes,
        not_before: datetime,
        not_after: datetime,
    ) -> IssuedCertificate:
        """A certificate for `name`; it never outlives the authority's own. CPU only, no waiting."""

    def sign_crl(self, revoked: Sequence[Revocation], number: int, now: datetime) -> bytes:
        """The zone's whole CRL file in PEM: `revoked` and what else its verifiers need."""


class FleetAuthority(IssuingAuthority, Protocol):
    """All operational authorities that count, of which one issues."""

    async def adopt(self, wanted: InForce) -> None:
        """Has the keys ready that are wanted, issues by the one that is to issue from now on, and
        puts the anchors in place."""


@dataclass(frozen=True)
class SignedStatus:
    """An answer about a certificate's status (OCSP), and how long it may be relied on."""

    der: bytes
    this_update: datetime
    next_update: datetime


class StatusAuthority(Protocol):
    """Says for the operational authorities what became of their certificates."""

    def issuer(self, question: StatusQuestion) -> x509.Certificate | None:
        """The authority that the question names; none when it isn't one of ours."""

    def sign(self, question: StatusQuestion, status: Status, now: datetime) -> SignedStatus:
        """The answer to a question about an authority that `issuer` found. CPU only.

        Raises:
            LookupError: the authority counts no longer.
        """
