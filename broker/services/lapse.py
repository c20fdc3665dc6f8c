"""Certificates that were never proven in time: revoked, and their serial numbers free again."""

import asyncio
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.core.lifecycle import DEVICE_TRANSITIONS, DeviceInput, DeviceState
from broker.core.records import Certificate, LockOut, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.revoking import FLEET_CRL_WANTED, revoke_certificate

_BATCH: Final = 100
_AT_ONCE: Final = 10_000
"""How many in one call; more is the next call's."""
_REST_S: Final = 0.05
"""Between two batches: whoever waits for the writer gets it, in another process, too."""


class LapseService:
    """Takes back what nobody came for."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def revoke_unconfirmed(self) -> int:
        """Revokes every certificate whose `confirm_by` is past; returns how many there were.

        In batches with rests, because an operator's act may come at any moment.
        """
        total = 0
        while total < _AT_ONCE and await self._registry.read(self._is_due):
            total += await self._registry.write(self._revoke_batch)
            await asyncio.sleep(_REST_S)
        return total

    def _is_due(self, view: ReadTransaction) -> bool:
        return bool(view.unconfirmed_before(self._clock.now(), 1))

    def _revoke_batch(self, tx: WriteTransaction) -> int:
        now = self._clock.now()
        unconfirmed = tx.unconfirmed_before(now, _BATCH)
        if unconfirmed:
            wanted = tx.raise_counter(FLEET_CRL_WANTED)
            for certificate in unconfirmed:
                self._lapse(tx, certificate, wanted, now)
        return len(unconfirmed)

    def _lapse(
        self, tx: WriteTransaction, certificate: Certificate, crl_wanted: int, now: datetime
    ) -> None:
        device = tx.device(certificate.device_id)
        if device is None:
            raise LookupError(f"certificate {certificate.serial} has no device")
        # A device that an operator suspended or revoked meanwhile stays where it was put.
        state = DEVICE_TRANSITIONS.get((device.state, DeviceInput.LAPSE), device.state)
        if state is not device.state:
            tx.save_device(replace(device, state=state))
        if device.state is DeviceState.PENDING:
            tx.count_device(device.group, -1)
        revoke_certificate(tx, device, certificate, RevocationReason.NEVER_CONFIRMED, now)
        tx.save_lock_out(
            LockOut(
                id=f"lapse-{certificate.serial}",
                device_id=device.id,
                act=DeviceInput.LAPSE,
                serials=(certificate.serial,),
                requested_at=now,
                crl_wanted=crl_wanted,
            )
        )
