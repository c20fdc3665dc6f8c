"""Issuing an operational certificate inside a transaction, and the answer that carries it.

The same for a claim, a renewal and a recovery: only the decision before it differs.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from broker.core.certificate_profile import Profile, validity
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import CertificateState
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Certificate, Reply
from broker.ports.authorities import IssuingAuthority
from broker.ports.registry import WriteTransaction
from broker.protocol import codec, topics
from broker.protocol.messages import Endpoint, EnrollAccepted, TrustBundle
from broker.protocol.names import ClaimName, DeviceId
from broker.protocol.topics import Outcome
from broker.protocol.zones import Zone

_REPEATS: Final = 10
_REPEATS_A_SECOND: Final = 1 / 60


@dataclass
class Welcome:
    """What every member is told about the fleet zone. The bundle is replaced while the service
    runs (`services/trust_bundles.py`)."""

    fleet: Endpoint
    trust_bundle: TrustBundle


@dataclass(frozen=True)
class Asked:
    """For whom a certificate is issued, and what for."""

    device_id: DeviceId
    csr: VerifiedCsr
    lifetime: timedelta
    claim_name: ClaimName | None = None
    """The claim certificate whose claims it counts towards."""
    order: int | None = None
    """The rotation order that it follows."""


@dataclass(frozen=True)
class Issuing:
    """Makes certificates durable together with the answers that carry them."""

    authority: IssuingAuthority
    welcome: Welcome
    confirm_within: timedelta
    """How long a certificate stands that hasn't been proven."""
    new_id: Callable[[], str]
    repeats: TokenBuckets = field(default_factory=lambda: TokenBuckets(_REPEATS_A_SECOND, _REPEATS))
    """Used inside transactions alone, which is by one thread."""

    def is_noted(self, certificate: Certificate, monotonic_s: float) -> bool:
        """Whether that it's given once more gets a line of the audit log, which never ends: the
        first times do, then one a minute."""
        return not self.repeats.take(certificate.serial, monotonic_s)

    def issue(self, tx: WriteTransaction, asked: Asked, now: datetime) -> Certificate:
        """A new certificate, unproven yet."""
        valid = validity(Profile.DEVICE, now, asked.lifetime)
        issued = self.authority.issue(
            asked.device_id, asked.csr.public_key, valid.not_before, valid.not_after
        )
        certificate = Certificate(
            serial=issued.serial,
            device_id=asked.device_id,
            state=CertificateState.ISSUED,
            claim_name=asked.claim_name,
            key_sha256=asked.csr.key_sha256,
            certificate_sha256=issued.certificate_sha256,
            not_before=issued.not_before,
            not_after=issued.not_after,
            pem=issued.pem,
            confirm_by=now + self.confirm_within,
            rotation_order=asked.order,
            generation=issued.generation,
        )
        tx.save_certificate(certificate)
        return certificate

    def prolong(self, tx: WriteTransaction, certificate: Certificate, now: datetime) -> Certificate:
        """A device that still asks is alive: its unproven certificate gets its full time again."""
        if certificate.state is not CertificateState.ISSUED:
            return certificate
        prolonged = replace(certificate, confirm_by=now + self.confirm_within)
        tx.save_certificate(prolonged)
        return prolonged

    def answer(
        self,
        tx: WriteTransaction,
        zone: Zone,
        request_topic: str,
        request_id: str,
        certificate: Certificate,
        now: datetime,
    ) -> Reply:
        """The accepted answer, which waits in the outbox from this commit on."""
        unproven = certificate.state is CertificateState.ISSUED
        accepted = EnrollAccepted(
            request_id=request_id,
            device_id=certificate.device_id,
            certificate_chain=certificate.pem + self.authority.chain_of(certificate.generation),
            not_after=certificate.not_after,
            confirm_by=certificate.confirm_by if unproven else None,
            fleet=self.welcome.fleet,
            trust_bundle=self.welcome.trust_bundle,
        )
        topic = topics.answer_topic(request_topic, Outcome.ACCEPTED)
        reply = Reply(self.new_id(), zone, topic, codec.encode(accepted), now)
        tx.add_reply(reply)
        return reply
