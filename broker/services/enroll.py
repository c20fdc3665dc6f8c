"""A claim: a device with a bootstrap certificate asks for its operational one.

Decision, certificate, audit event and answer become durable in one commit. A device that hears
nothing asks again and gets the same certificate.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from math import ceil

from broker.core.certificate_profile import Profile, validity
from broker.core.claim_policy import AskedClaim, ClaimContext, Issue, Repeat, decide_claim
from broker.core.csr import verify_csr
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState, next_device_state
from broker.core.records import Certificate, Device, Event, EventKind, Reply, RevocationReason
from broker.ports import Clock, IssuingAuthority, Registry, WriteTransaction
from broker.protocol import codec, topics
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import Endpoint, EnrollAccepted, EnrollRequest, TrustBundle
from broker.protocol.names import SerialNumber
from broker.protocol.topics import ClaimOrigin, Operation, Outcome
from broker.protocol.zones import Zone
from broker.services.revoking import revoke_certificate


@dataclass(frozen=True)
class Welcome:
    """What every new member is told about the fleet zone."""

    fleet: Endpoint
    trust_bundle: TrustBundle


class EnrollService:
    """Answers `enroll` requests of the claim zone."""

    def __init__(
        self,
        registry: Registry,
        authority: IssuingAuthority,
        clock: Clock,
        welcome: Welcome,
        confirm_within: timedelta,
        new_id: Callable[[], str],
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._clock = clock
        self._welcome = welcome
        self._confirm_within = confirm_within
        self._new_id = new_id

    async def enroll(self, origin: ClaimOrigin, request: EnrollRequest) -> Reply:
        """The accepted answer, committed to the outbox with everything that it says.

        Raises:
            Refused: the claim isn't granted; nothing was changed.
            RegistryError: the registry failed; nothing was changed.
        """
        asked = AskedClaim(
            SerialNumber(request.serial), verify_csr(request.csr), dict(request.parameters)
        )
        return await self._registry.write(
            lambda tx: self._claim(tx, origin, asked, request.request_id)
        )

    def _claim(
        self, tx: WriteTransaction, origin: ClaimOrigin, asked: AskedClaim, request_id: str
    ) -> Reply:
        now = self._clock.now()
        context = tx.claim_context(origin.claim_name, asked.serial, asked.csr.key_sha256)
        decision = decide_claim(context, asked, now, self._confirm_within)
        if isinstance(decision, Repeat):
            kind, device = EventKind.CLAIM_REPEATED, decision.device
            certificate = self._prolong(tx, decision.certificate, now)
        else:
            kind, device = EventKind.CLAIM_ACCEPTED, self._member(tx, context, decision, asked, now)
            self._give_back(tx, device, decision, now)
            certificate = self._issue(tx, origin, decision, asked, now)
        tx.add_event(_event(kind, origin, device, certificate, now))
        reply = self._reply(origin, certificate, request_id, now)
        tx.add_reply(reply)
        return reply

    def _prolong(
        self, tx: WriteTransaction, certificate: Certificate, now: datetime
    ) -> Certificate:
        """A device that still asks is alive: its unproven certificate gets its full time again."""
        if certificate.state is not CertificateState.ISSUED:
            return certificate
        prolonged = replace(certificate, confirm_by=now + self._confirm_within)
        tx.save_certificate(prolonged)
        return prolonged

    def _member(
        self,
        tx: WriteTransaction,
        context: ClaimContext,
        issue: Issue,
        asked: AskedClaim,
        now: datetime,
    ) -> Device:
        known = context.device
        if known is None and tx.device(issue.device_id) is not None:
            raise Refused(
                Code.NAME_TAKEN,
                f"The name {issue.device_id!r} belongs to a device with another serial number.",
                retry_after_s=ceil(self._confirm_within.total_seconds()),
            )
        before = known.state if known else DeviceState.REGISTERED
        device = Device(
            id=issue.device_id,
            group=issue.group.name,
            serial=asked.serial,
            state=next_device_state(before, DeviceInput.ISSUE),
            registered_at=known.registered_at if known else now,
            parameters=asked.parameters,
            activated_at=known.activated_at if known else None,
        )
        tx.save_device(device)
        if issue.is_new_member:
            tx.count_device(issue.group.name, 1)
        return device

    def _give_back(self, tx: WriteTransaction, device: Device, issue: Issue, now: datetime) -> None:
        for lapsed in issue.lapsed:
            revoke_certificate(tx, device, lapsed, RevocationReason.REPLACED, now)

    def _issue(
        self,
        tx: WriteTransaction,
        origin: ClaimOrigin,
        issue: Issue,
        asked: AskedClaim,
        now: datetime,
    ) -> Certificate:
        valid = validity(Profile.DEVICE, now, issue.lifetime)
        issued = self._authority.issue(
            issue.device_id, asked.csr.public_key, valid.not_before, valid.not_after
        )
        certificate = Certificate(
            serial=issued.serial,
            device_id=issue.device_id,
            state=CertificateState.ISSUED,
            claim_name=origin.claim_name,
            key_sha256=asked.csr.key_sha256,
            certificate_sha256=issued.certificate_sha256,
            not_before=issued.not_before,
            not_after=issued.not_after,
            pem=issued.pem,
            confirm_by=now + self._confirm_within,
        )
        tx.save_certificate(certificate)
        tx.count_claim(origin.claim_name, 1)
        return certificate

    def _reply(
        self, origin: ClaimOrigin, certificate: Certificate, request_id: str, now: datetime
    ) -> Reply:
        unproven = certificate.state is CertificateState.ISSUED
        accepted = EnrollAccepted(
            request_id=request_id,
            device_id=certificate.device_id,
            certificate_chain=certificate.pem + self._authority.chain_pem,
            not_after=certificate.not_after,
            confirm_by=certificate.confirm_by if unproven else None,
            fleet=self._welcome.fleet,
            trust_bundle=self._welcome.trust_bundle,
        )
        topic = topics.answer_topic(topics.claim_topic(origin, Operation.ENROLL), Outcome.ACCEPTED)
        return Reply(self._new_id(), Zone.CLAIM, topic, codec.encode(accepted), now)


def _event(
    kind: EventKind, origin: ClaimOrigin, device: Device, certificate: Certificate, now: datetime
) -> Event:
    return Event(
        at=now,
        kind=kind,
        device_id=device.id,
        serial_number=device.serial,
        claim_name=origin.claim_name,
        client_id=origin.client_id,
        group=device.group,
        detail=f"certificate {certificate.serial}",
    )
