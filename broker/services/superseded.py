"""Superseded certificates whose grace is over: revoked, many in one CRL.

Nobody waits for these. Each CRL costs Mosquitto memory that it never gives back, so they share one
a minute, while an operator's revocation has its own at once. The grace is a promise, too: while
there is more than a batch holds, the next is twice as large, and comes after a second.
"""

from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.core.lifecycle import MEMBERS
from broker.core.records import Certificate, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.revoking import FLEET_CRL_WANTED, lock_out_of, revoke_certificate

BATCH: Final = 500
"""How many have one CRL, unless more are due; 60 ms of the registry's writer."""
LARGEST_BATCH: Final = 4 * BATCH
"""Bounds how long other writers wait."""
_REST_S: Final = 60.0
_REST_WHEN_MORE_S: Final = 1.0


class SupersededService:
    """Revokes what was superseded, in batches with rests between them."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock
        self._rested_at: float | None = None
        self._batch = BATCH

    async def revoke_superseded(self) -> int:
        """Revokes those whose grace is over, unless that was done a moment ago; how many it was.

        To be called about once a second: the first after a quiet time doesn't wait.
        """
        if self._rested_at is not None and self._clock.monotonic() < self._rested_at:
            return 0
        if not await self._registry.read(self._is_due):
            return 0
        done = await self._registry.write(self._revoke_batch)
        if done:
            has_more = done == self._batch
            self._batch = min(2 * self._batch, LARGEST_BATCH) if has_more else BATCH
            rest_s = _REST_WHEN_MORE_S if has_more else _REST_S
            self._rested_at = self._clock.monotonic() + rest_s
        return done

    def _is_due(self, view: ReadTransaction) -> bool:
        return bool(view.superseded_before(self._clock.now(), 1))

    def _revoke_batch(self, tx: WriteTransaction) -> int:
        now = self._clock.now()
        over = tx.superseded_before(now, self._batch)
        members = [each for each in over if _revoke(tx, each, now)]
        if over:
            wanted = tx.raise_counter(FLEET_CRL_WANTED)
            for certificate in members:
                tx.save_lock_out(lock_out_of(certificate, "superseded", wanted, now))
        return len(over)


def _revoke(tx: WriteTransaction, certificate: Certificate, now: datetime) -> bool:
    """Whether its device is a member, whose connection may have been made with it."""
    device = tx.device(certificate.device_id)
    if device is None:
        raise LookupError(f"certificate {certificate.serial} has no device")
    final = replace(certificate, held_at=None)
    revoke_certificate(tx, device, final, RevocationReason.SUPERSEDED, now)
    return device.state in MEMBERS
