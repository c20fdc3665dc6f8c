"""Keeping each zone's CRL in force: signed from the registry, put in place whole, applied.

The registry counts what should be in force, so a revocation that met a broker which was down, or a
service that was killed, is completed later: nothing but the counter has to be remembered.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.core.records import Event, EventKind
from broker.ports import BrokerControl, Clock, CrlFile, IssuingAuthority, Registry, Revocation
from broker.services.lock_out import LockOut
from broker.services.revoking import FLEET_CRL_WANTED

CRL_NUMBER = "crl.fleet.number"
_RESIGN_AFTER = timedelta(days=1)


class FleetCrl:
    """The fleet zone's CRL: operational certificates that must not connect any more."""

    def __init__(
        self,
        registry: Registry,
        authority: IssuingAuthority,
        file: CrlFile,
        control: BrokerControl,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._file = file
        self._control = control
        self._clock = clock
        self._lock_out = LockOut(registry, control)
        self._in_force: int | None = None
        self._revoked: Sequence[Revocation] = ()
        self._signed_at: float | None = None
        self._this_update: datetime | None = None

    async def bring_up_to_date(self) -> bool:
        """Signs and applies a CRL if the one in force lacks something; whether it did.

        On return the connections of what it revokes have ended, too.

        Raises:
            Exception: what the file or the broker raised; calling again tries again.
        """
        wanted = await self._registry.read(lambda tx: tx.counter(FLEET_CRL_WANTED))
        is_due = self._in_force != wanted or self._is_stale()
        if is_due:
            await self._publish(wanted)
        await self._lock_out.enforce(self._revoked)
        return is_due

    def _is_stale(self) -> bool:
        if self._signed_at is None:
            return True
        return self._clock.monotonic() - self._signed_at > _RESIGN_AFTER.total_seconds()

    def _next_update_time(self) -> datetime:
        """Now, but later than the last by a second: of two CRLs with the same thisUpdate, OpenSSL
        may go by the older one in a handshake that is under way."""
        now = self._clock.now()
        if self._this_update is not None:
            now = max(now, self._this_update + timedelta(seconds=1))
        self._this_update = now
        return now

    async def _publish(self, wanted: int) -> None:
        """`wanted` was read before the revocations are, so the CRL covers at least that much."""
        now = self._next_update_time()
        revoked = await self._registry.read(lambda tx: tx.revocations(now))
        number = await self._registry.write(lambda tx: tx.raise_counter(CRL_NUMBER))
        pem = await asyncio.to_thread(self._authority.sign_crl, revoked, number, now)
        await self._file.swap(pem, now)
        await self._control.apply_crl()
        self._in_force = wanted
        self._revoked = revoked
        self._signed_at = self._clock.monotonic()
        event = Event(now, EventKind.CRL_PUBLISHED, detail=f"number {number}, {len(revoked)} lines")
        await self._registry.write(lambda tx: tx.add_event(event))


class ClaimCrl:
    """The claim zone's CRL: the operator's command signs it, the service puts it in force."""

    COUNTER = "crl.claim"

    def __init__(self, registry: Registry, control: BrokerControl) -> None:
        self._registry = registry
        self._control = control
        self._in_force: int | None = None

    async def bring_up_to_date(self) -> bool:
        """Applies the file if it has changed since it was applied last; whether it did.

        Raises:
            Exception: what the broker raised; calling again tries again.
        """
        wanted = await self._registry.read(lambda tx: tx.counter(self.COUNTER))
        if self._in_force == wanted:
            return False
        await self._control.apply_crl()
        self._in_force = wanted
        return True
