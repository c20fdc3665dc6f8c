"""A renewal: a member asks for its next certificate over the connection that proves who it is."""

from datetime import datetime

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr, verify_csr
from broker.core.records import Certificate, Event, EventKind, Reply
from broker.core.renew_policy import decide_renew, lingering
from broker.core.successor import Succeed
from broker.ports import Clock, ReadTransaction, Registry, WriteTransaction
from broker.protocol import topics
from broker.protocol.messages import RenewRequest
from broker.protocol.topics import DeviceOrigin, Operation
from broker.protocol.zones import Zone
from broker.services.issuing import Issuing
from broker.services.succession import find_member, give_successor


class RenewService:
    """Answers `renew` requests of the fleet zone."""

    def __init__(self, registry: Registry, clock: Clock, issuing: Issuing) -> None:
        self._registry = registry
        self._clock = clock
        self._issuing = issuing

    async def renew(self, origin: DeviceOrigin, request: RenewRequest) -> Reply:
        """The accepted answer, committed to the outbox with everything that it says.

        The certificate in use stays good until the new one is confirmed, and its grace is over.

        Raises:
            Refused: the renewal isn't granted; nothing was changed.
            RegistryError: the registry failed; nothing was changed.
        """
        csr = verify_csr(request.csr)
        return await self._registry.write(lambda tx: self._renew(tx, origin, request, csr))

    def _renew(
        self, tx: WriteTransaction, origin: DeviceOrigin, request: RenewRequest, csr: VerifiedCsr
    ) -> Reply:
        now = self._clock.now()
        member = find_member(tx, origin.device_id, now)
        decision = decide_renew(member, csr, tx.newest_of_key(csr.key_sha256), now)
        order = _given_order(tx, origin, request.order)
        certificate = give_successor(tx, self._issuing, decision, csr, order, now)
        old = lingering(member, now) if member else None
        is_repeat = isinstance(decision, Repeat)
        if not is_repeat or self._issuing.is_noted(certificate, self._clock.monotonic()):
            tx.add_event(_event(decision, certificate, old, now))
        topic = topics.device_topic(origin, Operation.RENEW)
        return self._issuing.answer(tx, Zone.FLEET, topic, request.request_id, certificate, now)


def _given_order(view: ReadTransaction, origin: DeviceOrigin, claimed: int | None) -> int | None:
    """The order that it says to follow, if the device was ever given one as new: else who has its
    key could follow all that are still to come."""
    if claimed is None:
        return None
    last = view.last_orders([origin.device_id]).get(origin.device_id)
    return claimed if last is not None and claimed <= last else None


def _event(
    decision: Succeed | Repeat, certificate: Certificate, old: Certificate | None, now: datetime
) -> Event:
    detail = f"certificate {certificate.serial}"
    if certificate.rotation_order is not None:
        detail += f", order {certificate.rotation_order}"
    if old is not None:
        detail += f"; while {old.serial} is in its grace: did the device lose its newer one,"
        detail += " or was its old key copied?"
    is_repeat = isinstance(decision, Repeat)
    return Event(
        at=now,
        kind=EventKind.RENEWAL_REPEATED if is_repeat else EventKind.RENEWAL_ACCEPTED,
        device_id=certificate.device_id,
        detail=detail,
    )
