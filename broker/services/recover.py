"""A recovery: a device whose certificate has expired asks for a new one in the claim zone.

The fleet's broker doesn't let it in any more, so it proves who it is by a signature of its old key.
"""

from datetime import UTC, datetime

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr, verify_csr
from broker.core.possession import verified_holder
from broker.core.records import Certificate, Device, Event, EventKind, Reply
from broker.core.recover_policy import RecoverContext, decide_recover
from broker.core.successor import Succeed
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import topics
from broker.protocol.codes import Refused
from broker.protocol.messages import RecoverRequest
from broker.protocol.names import Fingerprint
from broker.protocol.statements import recovery_statement
from broker.protocol.topics import ClaimOrigin, Operation
from broker.protocol.zones import Zone
from broker.services.issuing import Issuing
from broker.services.succession import find_member, give_successor


class RecoverService:
    """Answers `recover` requests of the claim zone."""

    def __init__(self, registry: Registry, clock: Clock, issuing: Issuing) -> None:
        self._registry = registry
        self._clock = clock
        self._issuing = issuing

    async def recover(self, origin: ClaimOrigin, request: RecoverRequest) -> Reply:
        """The accepted answer, committed to the outbox with everything that it says.

        It takes nothing from the claim certificate's allowance: no device is added.

        Raises:
            Refused: the recovery isn't granted; nothing was changed.
            RegistryError: the registry failed; nothing was changed.
        """
        csr = verify_csr(request.csr)
        statement = recovery_statement(request.request_id, csr.sha256)
        last = verified_holder(request.certificate, statement, request.signature)
        return await self._registry.write(
            lambda tx: self._recover(tx, origin, request.request_id, last, csr)
        )

    def _recover(
        self,
        tx: WriteTransaction,
        origin: ClaimOrigin,
        request_id: str,
        last: Fingerprint,
        csr: VerifiedCsr,
    ) -> Reply:
        now = self._clock.now()
        context = _context(tx, origin, last, csr, now)
        try:
            decision = decide_recover(context, csr, now)
        except Refused as refused:
            # The request doesn't name it, and an operator looks for it.
            if context.member is not None:
                device = context.member.device
                refused.serial, refused.device_id = device.serial, device.id
            raise
        certificate = give_successor(tx, self._issuing, decision, csr, None, now)
        is_repeat = isinstance(decision, Repeat)
        if not is_repeat or self._issuing.is_noted(certificate, self._clock.monotonic()):
            tx.add_event(_event(origin, context, decision, certificate, now))
        topic = topics.claim_topic(origin, Operation.RECOVER)
        return self._issuing.answer(tx, Zone.CLAIM, topic, request_id, certificate, now)


def _context(
    view: ReadTransaction,
    origin: ClaimOrigin,
    last: Fingerprint,
    csr: VerifiedCsr,
    now: datetime,
) -> RecoverContext:
    found = view.certificate_by_fingerprint(last)
    return RecoverContext(
        claim=view.claim_certificate(origin.claim_name),
        claim_group=view.group_of_claim(origin.claim_name),
        last=found,
        member=find_member(view, found.device_id, now) if found else None,
        key_certificate=view.newest_of_key(csr.key_sha256),
    )


def _event(
    origin: ClaimOrigin,
    context: RecoverContext,
    decision: Succeed | Repeat,
    certificate: Certificate,
    now: datetime,
) -> Event:
    is_repeat = isinstance(decision, Repeat)
    device: Device | None = context.member.device if context.member else None
    return Event(
        at=now,
        kind=EventKind.RECOVERY_REPEATED if is_repeat else EventKind.RECOVERY_ACCEPTED,
        device_id=certificate.device_id,
        serial_number=device.serial if device else None,
        claim_name=origin.claim_name,
        client_id=origin.client_id,
        group=device.group if device else None,
        detail=f"certificate {certificate.serial}{_why(context.last, now)}",
    )


def _why(last: Certificate | None, now: datetime) -> str:
    if last is None:
        return ""
    approved = last.recovery_approved_until
    approval = ", approved by an operator" if approved is not None and now < approved else ""
    return f"; {last.serial} ended {last.not_after.astimezone(UTC):%Y-%m-%d %H:%M} UTC{approval}"
