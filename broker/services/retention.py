"""The end of the audit log's oldest events: a sealed segment at a time, with rests between them."""

import asyncio
from datetime import timedelta

from broker.core.audit_chain import Floor, Seal, Signed, chained
from broker.core.records import Event
from broker.ports.audit import AuditError, AuditKey
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry


class Retention:
    """Drops what is older than the setting says; the service's chore.

    Args:
        keep: how long events stay; none for ever.
    """

    def __init__(
        self, registry: Registry, key: AuditKey, clock: Clock, keep: timedelta | None
    ) -> None:
        self._registry = registry
        self._key = key
        self._clock = clock
        self._keep = keep

    async def drop(self) -> bool:
        """Drops one segment, if all of it is too old; whether it did.

        The newest segment always stays, and with it the newest event.

        Raises:
            AuditError: the segment isn't what was sealed. Nothing is dropped then: it would be
                signed away.
        """
        if self._keep is None:
            return False
        floor, seals = await self._registry.read(_oldest)
        if len(seals) < 2:
            return False
        known, oldest = await asyncio.to_thread(self._look, floor, seals[0])
        if oldest.until >= self._clock.now() - self._keep:
            return False
        if await self._registry.read(lambda view: _is_awaited(view, oldest.last_id)):
            return False
        events = await self._registry.read(
            lambda view: view.events_after(known.last_id, oldest.events + 1)
        )
        covered = [event for event in events if (event.id or 0) <= oldest.last_id]
        higher = await asyncio.to_thread(raised, known, oldest, covered)
        signed = await asyncio.to_thread(self._key.sign, higher)
        await self._registry.write(lambda tx: tx.drop_events(higher, signed))
        return True

    def _look(self, floor: Signed | None, oldest: Signed) -> tuple[Floor, Seal]:
        return Floor() if floor is None else self._key.floor(floor), self._key.seal(oldest)


def raised(floor: Floor, oldest: Seal, covered: list[Event]) -> Floor:
    """The floor above the oldest segment.

    Raises:
        AuditError: its events aren't those that were sealed.
    """
    follows = (oldest.number, oldest.after_id) == (floor.number + 1, floor.last_id)
    if not follows or chained(floor.digest, covered) != oldest.digest:
        raise AuditError(
            "audit_altered",
            f"The audit log's events {floor.last_id + 1} to {oldest.last_id} aren't what was "
            "sealed, so none is dropped.",
            "See 'muster events verify', and compare with a backup.",
        )
    dropped = floor.events + oldest.events
    return Floor(number=oldest.number, last_id=oldest.last_id, events=dropped, digest=oldest.digest)


def _oldest(view: ReadTransaction) -> tuple[Signed | None, list[Signed]]:
    return view.audit_floor(), view.audit_seals(0, 2)


def _is_awaited(view: ReadTransaction, through: int) -> bool:
    """Whether a rollout has yet to see who joined by then: it learns of them by their events."""
    growing = [each for each in view.moving_rollouts() if each.selection.grows]
    firsts = [joined for each in growing for joined in view.joined_after(each.joined_to, 1)]
    return any(event_id <= through for event_id, _ in firsts)
