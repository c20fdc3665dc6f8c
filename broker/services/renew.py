"""A renewal: a member asks for its next certificate, by a key that it has now.

The connection says its name only, and may be older than what has become of the certificate that it
was made with.
"""

from datetime import datetime

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr, verify_csr
from broker.core.lifecycle import CertificateState
from broker.core.possession import signer_among
from broker.core.records import Certificate, Event, EventKind, Reply
from broker.core.renew_policy import admitted, decide_renew, signer, signers
from broker.core.successor import Succeed
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import topics
from broker.protocol.codes import Code
from broker.protocol.messages import RenewRequest
from broker.protocol.names import Fingerprint
from broker.protocol.statements import renewal_statement
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
        key = await self._verified_key(origin, request, csr)
        return await self._registry.write(lambda tx: self._renew(tx, origin, request, key, csr))

    async def _verified_key(
        self, origin: DeviceOrigin, request: RenewRequest, csr: VerifiedCsr
    ) -> Fingerprint:
        """By which of the device's keys the request is signed; another doesn't reach the writer."""
        statement = renewal_statement(
            request.request_id, origin.device_id, csr.sha256, request.order
        )
        now = self._clock.now()
        found = await self._registry.read(lambda view: find_member(view, origin.device_id, now))
        invalid = Code.RENEWAL_SIGNATURE_INVALID
        by = signer_among(signers(admitted(found), now), statement, request.signature, invalid)
        return by.key_sha256

    def _renew(
        self,
        tx: WriteTransaction,
        origin: DeviceOrigin,
        request: RenewRequest,
        key: Fingerprint,
        csr: VerifiedCsr,
    ) -> Reply:
        now = self._clock.now()
        member = admitted(find_member(tx, origin.device_id, now))
        by = signer(member, key, now)
        decision = decide_renew(member, by, csr, tx.newest_of_key(csr.key_sha256), now)
        order = _given_order(tx, origin, request.order)
        certificate = give_successor(tx, self._issuing, decision, csr, order, now)
        is_repeat = isinstance(decision, Repeat)
        if not is_repeat or self._issuing.is_noted(certificate, self._clock.monotonic()):
            tx.add_event(_event(decision, certificate, by, now))
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
    decision: Succeed | Repeat, certificate: Certificate, by: Certificate, now: datetime
) -> Event:
    detail = f"certificate {certificate.serial}"
    if certificate.rotation_order is not None:
        detail += f", order {certificate.rotation_order}"
    if by.state is CertificateState.SUPERSEDED:
        detail += f"; by {by.serial}, which is in its grace: did the device lose its newer one,"
        detail += " or was its old key copied?"
    is_repeat = isinstance(decision, Repeat)
    return Event(
        at=now,
        kind=EventKind.RENEWAL_REPEATED if is_repeat else EventKind.RENEWAL_ACCEPTED,
        device_id=certificate.device_id,
        detail=detail,
    )
