"""A claim: a device with a bootstrap certificate asks for its operational one.

Decision, certificate, audit event and answer become durable in one commit. A device that hears
nothing asks again and gets the same certificate.
"""

from datetime import datetime
from math import ceil

from broker.core.claim_policy import AskedClaim, ClaimContext, Issue, Repeat, decide_claim
from broker.core.csr import verify_csr
from broker.core.lifecycle import DeviceInput, DeviceState, next_device_state
from broker.core.records import Certificate, Device, Event, EventKind, Reply, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol import topics
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollRequest
from broker.protocol.names import SerialNumber
from broker.protocol.topics import ClaimOrigin, Operation
from broker.protocol.zones import Zone
from broker.services.issuing import Asked, Issuing
from broker.services.revoking import revoke_certificate


class EnrollService:
    """Answers `enroll` requests of the claim zone."""

    def __init__(self, registry: Registry, clock: Clock, issuing: Issuing) -> None:
        self._registry = registry
        self._clock = clock
        self._issuing = issuing

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
        try:
            decision = decide_claim(context, asked, now, self._issuing.confirm_within)
        except Refused as refused:
            refused.device_id = context.device.id if context.device else None
            raise
        if isinstance(decision, Repeat):
            kind, device = EventKind.CLAIM_REPEATED, decision.device
            certificate = self._issuing.prolong(tx, decision.certificate, now)
        else:
            kind, device = EventKind.CLAIM_ACCEPTED, self._member(tx, context, decision, asked, now)
            self._give_back(tx, device, decision, now)
            certificate = self._issue(tx, origin, decision, asked, now)
        is_repeat = kind is EventKind.CLAIM_REPEATED
        if not is_repeat or self._issuing.is_noted(certificate, self._clock.monotonic()):
            tx.add_event(_event(kind, origin, device, certificate, now))
        topic = topics.claim_topic(origin, Operation.ENROLL)
        return self._issuing.answer(tx, Zone.CLAIM, topic, request_id, certificate, now)

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
                retry_after_s=ceil(self._issuing.confirm_within.total_seconds()),
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
        wanted = Asked(issue.device_id, asked.csr, issue.lifetime, claim_name=origin.claim_name)
        certificate = self._issuing.issue(tx, wanted, now)
        tx.count_claim(origin.claim_name, 1)
        return certificate


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
