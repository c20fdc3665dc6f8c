"""Certificates that were never proven in time: revoked, and their serial numbers free again."""

from dataclasses import replace

from broker.core.lifecycle import DEVICE_TRANSITIONS, DeviceInput, DeviceState
from broker.core.records import Certificate, LockOut, RevocationReason
from broker.ports import Clock, Registry, WriteTransaction
from broker.services.revoking import FLEET_CRL_WANTED, revoke_certificate

_BATCH = 500


class LapseService:
    """Takes back what nobody came for."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def revoke_unconfirmed(self) -> int:
        """Revokes every certificate whose `confirm_by` is past; returns how many there were."""
        total = 0
        while True:
            done = await self._registry.write(self._revoke_batch)
            total += done
            if done < _BATCH:
                return total

    def _revoke_batch(self, tx: WriteTransaction) -> int:
        unconfirmed = tx.unconfirmed_before(self._clock.now(), _BATCH)
        for certificate in unconfirmed:
            self._lapse(tx, certificate)
        return len(unconfirmed)

    def _lapse(self, tx: WriteTransaction, certificate: Certificate) -> None:
        device = tx.device(certificate.device_id)
        if device is None:
            raise LookupError(f"certificate {certificate.serial} has no device")
        # A device that an operator suspended or revoked meanwhile stays where it was put.
        state = DEVICE_TRANSITIONS.get((device.state, DeviceInput.LAPSE), device.state)
        if state is not device.state:
            tx.save_device(replace(device, state=state))
        if device.state is DeviceState.PENDING:
            tx.count_device(device.group, -1)
        now = self._clock.now()
        revoke_certificate(tx, device, certificate, RevocationReason.NEVER_CONFIRMED, now)
        tx.save_lock_out(
            LockOut(
                id=f"lapse-{certificate.serial}",
                device_id=device.id,
                act=DeviceInput.LAPSE,
                serials=(certificate.serial,),
                requested_at=now,
                crl_wanted=tx.counter(FLEET_CRL_WANTED),
            )
        )
