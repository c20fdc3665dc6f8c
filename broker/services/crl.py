"""Keeping each zone's CRL in force: signed from the registry, put in place whole, applied.

The registry counts what should be in force, so a revocation that met a broker which was down, or a
service that was killed, is completed later. Files are watched, too: Mosquitto carries on without
any CRL when it is told to read a damaged one.
"""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

from broker.core.ca_rollover import InForce, in_force
from broker.core.certificate_profile import BACKDATING
from broker.core.records import Event, EventKind, LockOut
from broker.ports.authorities import FleetAuthority
from broker.ports.brokers import BrokerControl, CrlFile, LastingCrlFile, WatchedCrlFile
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.lock_out import BATCH, LockOuts
from broker.services.revoking import FLEET_CRL_WANTED

CRL_NUMBER = "crl.fleet.number"
CLAIM_CRL_WANTED = "crl.claim"
"""Registry counter: raised when the claim zone's broker should read its files again."""
_RESIGN_AFTER = timedelta(days=1)
_AHEAD_AT_MOST = BACKDATING * 0.8


class FleetCrl:
    """The fleet zone's CRL: operational certificates that must not connect any more; and whose
    certificates count at all, which changes when an operational authority is replaced."""

    def __init__(
        self,
        registry: Registry,
        authority: FleetAuthority,
        file: WatchedCrlFile,
        control: BrokerControl,
        clock: Clock,
        lock_outs: LockOuts,
        infrastructure: LastingCrlFile,
    ) -> None:
        self._registry = registry
        self._authority = authority
        self._file = file
        self._control = control
        self._clock = clock
        self._lock_outs = lock_outs
        self._infrastructure = infrastructure
        self._written: int | None = None
        """The counter's value that the file covers; none when it isn't this service's."""
        self._in_force: int | None = None
        self._in_force_at: datetime | None = None
        self._signed_at: float | None = None
        self._this_update: datetime | None = None
        self._trusted: InForce | None = None
        self.trusted_in_force: InForce | None = None
        """Whom the broker trusts, as it was told last."""

    async def bring_up_to_date(self) -> bool:
        """Signs and applies a CRL if the one in force lacks something, or its file isn't what it
        should be; whether it did.

        On return the connections of those whom the first waiting lock-outs concern have ended, too.

        Raises:
            Exception: what the file or the broker raised; calling again tries again.
        """
        wanted, waiting, trusted = await self._registry.read(_read)
        if trusted != self._trusted:
            self._written = self._in_force = self.trusted_in_force = None
            self._trusted = trusted
        is_damaged = self._written is not None and not await self._file.is_intact()
        if await self._infrastructure.restore(self._clock.now()):
            self._in_force = None
            await self._registry.write(self._note_restored)
        is_due = is_damaged or self._in_force != wanted or self._is_stale()
        if is_due:
            await self._publish_and_kick(wanted, trusted, is_damaged, waiting)
        if waiting and self._in_force_at is not None:
            await self._lock_outs.carry_out(waiting, self._in_force_at)
        return is_due

    def _is_stale(self) -> bool:
        """By either clock: one stops while the machine sleeps, the other may be set."""
        if self._signed_at is None or self._this_update is None:
            return True
        if self._clock.monotonic() - self._signed_at > _RESIGN_AFTER.total_seconds():
            return True
        age = self._clock.now() - self._this_update
        return age > _RESIGN_AFTER or -age > _AHEAD_AT_MOST

    def _next_update_time(self) -> datetime:
        """Now, but later than the last by a second: of two CRLs with the same thisUpdate, OpenSSL
        may go by the older one in a handshake that is under way.

        Not so when that would be too far ahead (the clock was set back): a CRL that isn't valid yet
        locks out the whole fleet."""
        now = self._clock.now()
        if self._this_update is not None and self._this_update - now < _AHEAD_AT_MOST:
            now = max(now, self._this_update + timedelta(seconds=1))
        self._this_update = now
        return now

    async def _publish_and_kick(
        self, wanted: int, trusted: InForce, is_damaged: bool, waiting: Sequence[LockOut]
    ) -> None:
        """Who is put out needn't stay connected until the CRL is in force, however long it takes;
        and when it can't come into force, it's all that can be done."""
        kicking = asyncio.create_task(self._lock_outs.kick(waiting))
        try:
            await self._publish(wanted, trusted, is_damaged)
        finally:
            await kicking

    def _note_restored(self, tx: WriteTransaction) -> None:
        tx.raise_counter(CLAIM_CRL_WANTED)  # its broker reads the file, too
        detail = "the infrastructure authority's, from the last good copy"
        tx.add_event(Event(self._clock.now(), EventKind.CRL_REPAIRED, detail=detail))

    async def _publish(self, wanted: int, trusted: InForce, is_damaged: bool) -> None:
        """`wanted` was read before the revocations are, so the CRL covers at least that much."""
        self._in_force = None
        if is_damaged:
            self._written = None
        if self._written != wanted or self._is_stale():
            await self._authority.adopt(trusted)
            await self._write(wanted, is_damaged)
        await self._control.apply_crl()
        self._in_force = wanted
        self._in_force_at = self._clock.now()
        self.trusted_in_force = trusted

    async def _write(self, wanted: int, is_damaged: bool) -> None:
        now = self._next_update_time()
        revoked = await self._registry.read(lambda tx: tx.revocations(now))
        number = await self._registry.write(lambda tx: tx.raise_counter(CRL_NUMBER))
        pem = await asyncio.to_thread(self._authority.sign_crl, revoked, number, now)
        await self._file.swap(pem, now)
        if is_damaged or self._signed_at is None:
            # Nobody knows what the broker was told to read while nobody looked.
            names = dict.fromkeys(line.device_id for line in revoked)
            self._lock_outs.suspect(name for name in names if name is not None)
        self._written = wanted
        self._signed_at = self._clock.monotonic()
        kind = EventKind.CRL_REPAIRED if is_damaged else EventKind.CRL_PUBLISHED
        event = Event(self._clock.now(), kind, detail=f"number {number}, {len(revoked)} lines")
        await self._registry.write(lambda tx: tx.add_event(event))


def _read(tx: ReadTransaction) -> tuple[int, list[LockOut], InForce]:
    """In one view: the counter covers every lock-out that is seen with it."""
    trusted = in_force(tx.ca_rollover())
    return tx.counter(FLEET_CRL_WANTED), tx.waiting_lock_outs(BATCH), trusted


async def put_in_place(
    registry: Registry, authority: FleetAuthority, file: CrlFile, clock: Clock
) -> None:
    """Anchors and CRL as the registry has them, for a fleet broker that is about to start.

    Raises:
        Exception: what the authority or the file raised.
    """
    # What is signed next, when the broker runs, must have a later thisUpdate.
    now = clock.now() - timedelta(seconds=1)
    _, _, trusted = await registry.read(_read)
    await authority.adopt(trusted)
    revoked = await registry.read(lambda tx: tx.revocations(now))
    number = await registry.write(lambda tx: tx.raise_counter(CRL_NUMBER))
    await file.swap(await asyncio.to_thread(authority.sign_crl, revoked, number, now), now)


class ClaimCrl:
    """The claim zone's CRL: the operator's command signs it, the service puts it in force."""

    COUNTER = CLAIM_CRL_WANTED

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
