"""Taking serial numbers off an allow-list that were put on it by mistake."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from broker.core.records import Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol.names import GroupName, SerialNumber
from broker.services.enrollments import CHUNK
from broker.services.problems import unknown_group

_EMPTY: Final[tuple[SerialNumber, ...]] = ()


@dataclass(frozen=True)
class Removal:
    """Serial numbers that were to be taken off, by what became of them."""

    removed: Sequence[SerialNumber] = _EMPTY
    claimed: Sequence[SerialNumber] = _EMPTY
    """A device has them, so they stay."""
    unknown: Sequence[SerialNumber] = _EMPTY
    """They aren't on the list."""


async def remove_serials(
    registry: Registry,
    clock: Clock,
    group: GroupName,
    serials: Iterable[SerialNumber],
    *,
    dry_run: bool = False,
) -> Removal:
    """Takes serial numbers off the group's allow-list that no device of the group has.

    Each chunk is durable with its audit event before the next begins.

    Args:
        serials: what stands there twice counts once.
        dry_run: whether to decide only; then it's what would be removed.

    Raises:
        Problem: GROUP_UNKNOWN.
    """
    done = Removal()
    waiting = iter(dict.fromkeys(serials))
    while chunk := list(islice(waiting, CHUNK)):
        if dry_run:
            part = await _preview(registry, group, chunk)
        else:
            part = await _remove(registry, clock, group, chunk)
        done = Removal(
            (*done.removed, *part.removed),
            (*done.claimed, *part.claimed),
            (*done.unknown, *part.unknown),
        )
    return done


async def _preview(
    registry: Registry, group: GroupName, serials: Sequence[SerialNumber]
) -> Removal:
    return await registry.read(lambda view: _decide(view, group, serials))


async def _remove(
    registry: Registry, clock: Clock, group: GroupName, serials: Sequence[SerialNumber]
) -> Removal:
    now = clock.now()

    def work(view: WriteTransaction) -> Removal:
        decided = _decide(view, group, serials)
        if decided.removed:
            view.remove_enrollments(group, decided.removed)
            # One number is found again by 'events --serial'; many would be too long a line.
            only = decided.removed[0] if len(decided.removed) == 1 else None
            detail = f"{len(decided.removed)} serial numbers"
            kind = EventKind.ENROLLMENTS_REMOVED
            view.add_event(Event(now, kind, serial_number=only, group=group, detail=detail))
        return decided

    return await registry.write(work)


def _decide(view: ReadTransaction, group: GroupName, serials: Sequence[SerialNumber]) -> Removal:
    if view.group(group) is None:
        raise unknown_group(group)
    claimed = view.claimed(group, serials)
    free = view.enrolled(group, serials) - claimed
    return Removal(
        removed=[each for each in serials if each in free],
        claimed=[each for each in serials if each in claimed],
        unknown=[each for each in serials if each not in free and each not in claimed],
    )
