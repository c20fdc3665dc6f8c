"""A confirmation: a device proves its new certificate by having connected with it.

The broker doesn't say with which certificate somebody has connected: its key signs the request.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from broker.core.confirm_policy import Activate, decide_confirm, own_certificate
from broker.core.lifecycle import (
    CertificateInput,
    CertificateState,
    DeviceInput,
    next_certificate_state,
    next_device_state,
)
from broker.core.possession import signer_among
from broker.core.records import Certificate, Device, Event, EventKind, Reply, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol import codec, topics
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import ConfirmAccepted, ConfirmRequest
from broker.protocol.names import Fingerprint
from broker.protocol.statements import confirmation_statement
from broker.protocol.topics import DeviceOrigin, Operation, Outcome
from broker.protocol.zones import Zone
from broker.services.revoking import revoke_certificate
from broker.services.succession import supersede


class ConfirmService:
    """Answers `confirm` requests of the fleet zone."""

    def __init__(self, registry: Registry, clock: Clock, new_id: Callable[[], str]) -> None:
        self._registry = registry
        self._clock = clock
        self._new_id = new_id

    async def confirm(self, origin: DeviceOrigin, request: ConfirmRequest) -> Reply:
        """The accepted answer, committed to the outbox; asking again changes nothing.

        Raises:
            Refused: the certificate isn't the device's, isn't good any more, or another key asks.
            RegistryError: the registry failed; nothing was changed.
        """
        await self._refuse_unsigned(origin, request)
        return await self._registry.write(lambda tx: self._confirm(tx, origin, request))

    async def _refuse_unsigned(self, origin: DeviceOrigin, request: ConfirmRequest) -> None:
        """A certificate keeps its key, so this holds whatever changes before the transaction."""
        named = Fingerprint(request.certificate_sha256)
        found = await self._registry.read(lambda view: view.certificate_by_fingerprint(named))
        certificate = own_certificate(origin.device_id, found)
        statement = confirmation_statement(request.request_id, origin.device_id, named)
        invalid = Code.CONFIRMATION_SIGNATURE_INVALID
        signer_among([certificate], statement, request.signature, invalid)

    def _confirm(
        self, tx: WriteTransaction, origin: DeviceOrigin, request: ConfirmRequest
    ) -> Reply:
        now = self._clock.now()
        device = tx.device(origin.device_id)
        certificate = tx.certificate_by_fingerprint(Fingerprint(request.certificate_sha256))
        live = tuple(
            c
            for c in tx.certificates_of([origin.device_id])
            if c.state is not CertificateState.REVOKED
        )
        decision = decide_confirm(device, certificate, live, now)
        if device is None or certificate is None:  # what decide_confirm refused already
            raise Refused(Code.CERTIFICATE_UNKNOWN)
        if isinstance(decision, Activate):
            self._activate(tx, device, certificate, decision, now)
        reply = self._reply(origin, certificate, request.request_id, now)
        tx.add_reply(reply)
        return reply

    def _activate(
        self,
        tx: WriteTransaction,
        device: Device,
        certificate: Certificate,
        decision: Activate,
        now: datetime,
    ) -> None:
        active = replace(
            device,
            state=next_device_state(device.state, DeviceInput.CONFIRM),
            activated_at=device.activated_at or now,
        )
        tx.save_device(active)
        tx.save_certificate(
            replace(
                certificate,
                state=next_certificate_state(certificate.state, CertificateInput.CONFIRM),
                confirmed_at=now,
            )
        )
        for old in decision.replaced:
            revoke_certificate(tx, active, old, RevocationReason.REPLACED, now)
        self._supersede(tx, active, decision, now)
        tx.add_event(
            Event(
                at=now,
                kind=EventKind.DEVICE_ACTIVE,
                device_id=device.id,
                serial_number=device.serial,
                claim_name=certificate.claim_name,
                group=device.group,
                detail=f"certificate {certificate.serial}",
            )
        )

    def _supersede(
        self, tx: WriteTransaction, device: Device, decision: Activate, now: datetime
    ) -> None:
        if not decision.superseded:
            return
        group = tx.group(device.group)
        grace = group.rotation_grace if group else timedelta()
        for old in decision.superseded:
            # What was never proven isn't needed, whatever happens to the device.
            is_proven = old.confirmed_at is not None
            supersede(tx, device, old, now + grace if is_proven else now, now)

    def _reply(
        self, origin: DeviceOrigin, certificate: Certificate, request_id: str, now: datetime
    ) -> Reply:
        accepted = ConfirmAccepted(
            request_id=request_id,
            device_id=origin.device_id,
            certificate_sha256=certificate.certificate_sha256,
            not_after=certificate.not_after,
        )
        topic = topics.answer_topic(
            topics.device_topic(origin, Operation.CONFIRM), Outcome.ACCEPTED
        )
        return Reply(self._new_id(), Zone.FLEET, topic, codec.encode(accepted), now)
