"""Sealing the audit log, some seconds after what happened: no request waits for it."""

import asyncio
from typing import Final

from broker.core.audit_chain import SEGMENT, Floor, Seal, Signed, sealed
from broker.core.records import Event, EventKind
from broker.ports.audit import AuditError, AuditHead, AuditKey
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction

_PAGE: Final = 8 * SEGMENT
_PAGES_AT_ONCE: Final = 20


class AuditSeals:
    """Seals what has been added; the service's chore."""

    def __init__(self, registry: Registry, key: AuditKey, head: AuditHead, clock: Clock) -> None:
        self._registry = registry
        self._key = key
        self._head = head
        self._clock = clock
        self._last: Seal | Floor | None = None
        self._lost_to: int | None = None

    async def bring_up_to_date(self) -> bool:
        """Seals what there is; whether there is more than it did.

        Raises:
            AuditError, RegistryError: as `seal`.
        """
        for _ in range(_PAGES_AT_ONCE):
            if not await self.seal():
                return False
        return True

    async def seal(self) -> bool:
        """Seals the next events; whether there may be more.

        Raises:
            AuditError: what is sealed already was tampered with.
            RegistryError: calling again tries again.
        """
        last = self._last or await self._resume()
        events = await self._registry.read(lambda view: view.events_after(last.last_id, _PAGE))
        if not events:
            return False
        following = await asyncio.to_thread(self._sealed, last, events)
        self._last = None  # if what follows fails, nobody knows how far it got
        await self._registry.write(lambda tx: _save(tx, following))
        newest, signed = following[-1]
        await asyncio.to_thread(self._head.write, signed)
        self._last, self._lost_to = newest, None
        return len(events) == _PAGE

    def _sealed(self, last: Seal | Floor, events: list[Event]) -> list[tuple[Seal, Signed]]:
        following, lost = [], self._lost_to
        for begin in range(0, len(events), SEGMENT):
            last = sealed(last, events[begin : begin + SEGMENT], lost)
            following.append((last, self._key.sign(last)))
            lost = None
        return following

    async def _resume(self) -> Seal | Floor:
        kept = await self._registry.read(_kept)
        last, heads = await asyncio.to_thread(self._look, *kept)
        lost = lost_to(last, heads)
        if lost is not None and lost != self._lost_to:
            await self._registry.write(lambda tx: self._record_loss(tx, lost, last.last_id))
            self._lost_to = lost
        return last

    def _look(self, newest: Signed | None, floor: Signed | None) -> tuple[Seal | Floor, list[Seal]]:
        heads = [self._key.seal(each) for each in self._head.read()]
        return end_of(self._key, newest, floor), heads

    def _record_loss(self, tx: WriteTransaction, lost: int, present: int) -> None:
        detail = f"events up to {lost} were sealed, and the registry holds them to {present}: "
        detail += "a backup was restored, or somebody removed them"
        tx.add_event(Event(self._clock.now(), EventKind.AUDIT_GAP, detail=detail))


def end_of(key: AuditKey, newest: Signed | None, floor: Signed | None) -> Seal | Floor:
    """Behind what the next seal comes.

    Raises:
        AuditError: they are forged, or an older state of the registry was mixed with a newer one.
    """
    dropped = Floor() if floor is None else key.floor(floor)
    if newest is None:
        return dropped
    last = key.seal(newest)
    if last.number <= dropped.number:
        raise AuditError(
            "audit_altered",
            "A seal of the audit log covers events that had been dropped.",
            "See 'muster events verify', and compare with a backup.",
        )
    return last


def lost_to(last: Seal | Floor, heads: list[Seal]) -> int | None:
    """Up to which event it had been sealed, when the registry doesn't hold as much now."""
    for head in heads:
        at = (head.number, head.last_id)
        here = (last.number, last.last_id)
        if at > here or (at == here and head.digest != last.digest):
            return head.last_id
    return None


def _kept(view: ReadTransaction) -> tuple[Signed | None, Signed | None]:
    return view.newest_audit_seal(), view.audit_floor()


def _save(tx: WriteTransaction, following: list[tuple[Seal, Signed]]) -> None:
    for seal, signed in following:
        tx.save_audit_seal(seal, signed)
