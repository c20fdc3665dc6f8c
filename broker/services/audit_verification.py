"""Whether the audit log is what was sealed: every event is read again."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Final

from broker.core.audit_chain import SEGMENT, Floor, Seal, chained
from broker.core.findings import Finding, Level
from broker.core.records import Event
from broker.ports.audit import AuditError, AuditHead, AuditKey
from broker.ports.registry import EventFilter, ReadTransaction, Registry
from broker.services.audit_seals import end_of, lost_to

AUDIT_LOG: Final = "audit_log"
"""The name of what is checked here."""
_SEALED_WITHIN: Final = timedelta(minutes=15)
"""The service needs seconds, and ten minutes where it can't tell that something has changed."""
_REMEDY: Final = (
    "Compare with a backup ('muster events export' of both) and with the service's log. Somebody "
    "who may write to the registry did so, if you didn't."
)


async def verify(registry: Registry, key: AuditKey, head: AuditHead) -> AsyncIterator[Finding]:
    """What is wrong, and at the end how far it goes.

    Events that were added since the last seal can't be verified yet; they are counted.
    """
    last: Seal | Floor = Floor()
    try:
        for program in await registry.read(lambda view: view.audit_programs()):
            message = "The registry runs this when it's written: it may keep events out."
            yield _wrong(program, message)
        forged = await registry.read(partial(_before_the_first, key=key))
        if forged is not None:
            yield _wrong(f"events up to {forged}", "They were added where none can be any more.")
        while True:
            step = await registry.read(partial(_next, key=key, last=last))
            if step.dropped is not None:
                last = step.dropped
            elif step.seal is not None:
                for finding in await asyncio.to_thread(_compare, last, step.seal, step.events):
                    yield finding
                if step.seal.number <= last.number:
                    return  # it lies under another's number, where each look would find it again
                last = step.seal
            else:
                break
        heads = await asyncio.to_thread(lambda: [key.seal(each) for each in head.read()])
    except AuditError as error:
        yield Finding(Level.ERROR, AUDIT_LOG, "seals", str(error), error.remedy)
        return
    lost = lost_to(last, heads)
    if lost is not None:
        yield _missing(last, lost)
    unsealed = f"{len(step.events)}{' or more' if len(step.events) == SEGMENT else ''}"
    message = f"Read up to event {last.last_id:,}; added since its last seal: {unsealed}."
    yield Finding(Level.OK, AUDIT_LOG, "audit log", message)


@dataclass(frozen=True)
class _Step:
    """What follows in one view of the registry: the service seals and drops meanwhile."""

    dropped: Floor | None
    seal: Seal | None
    events: list[Event]


def _before_the_first(view: ReadTransaction, key: AuditKey) -> int | None:
    """The last event among those that no seal will ever cover: what was there was dropped, and
    numbers begin with 1."""
    found = view.events(EventFilter(before_id=_floor(view, key).last_id + 1, limit=1))
    return found[0].id if found else None


def _floor(view: ReadTransaction, key: AuditKey) -> Floor:
    signed = view.audit_floor()
    return Floor() if signed is None else key.floor(signed)


def _next(view: ReadTransaction, key: AuditKey, last: Seal | Floor) -> _Step:
    floor = _floor(view, key)
    if floor.number > last.number:
        return _Step(floor, None, [])
    seals = view.audit_seals(last.number, 1)
    if not seals:
        return _Step(None, None, view.events_after(last.last_id, SEGMENT))
    seal = key.seal(seals[0])
    found = view.events_after(seal.after_id, seal.events + 1)
    return _Step(None, seal, [each for each in found if (each.id or 0) <= seal.last_id])


def _compare(last: Seal | Floor, seal: Seal, events: list[Event]) -> Iterator[Finding]:
    subject = f"events {seal.after_id + 1} to {seal.last_id}"
    if (seal.number, seal.after_id) != (last.number + 1, last.last_id):
        yield _wrong(subject, "The seal before theirs is missing.")
        return
    if seal.lost_to is not None:
        message = (
            f"Before them, events up to {seal.lost_to} or their seals were lost: a backup was "
            "restored, or somebody removed them. These were sealed as they were found then."
        )
        yield Finding(Level.WARNING, AUDIT_LOG, subject, message, _REMEDY)
    if chained(last.digest, events) != seal.digest:
        what = "changed" if len(events) == seal.events else "removed or added"
        yield _wrong(subject, f"Since they were sealed, some were {what}.")


async def examine_audit(
    registry: Registry, key: AuditKey, head: AuditHead, now: datetime
) -> list[Finding]:
    """What can be told without reading it all: that its seals are there, none is missing, and the
    service keeps up."""
    kept = await registry.read(lambda view: (view.newest_audit_seal(), view.audit_floor()))
    try:
        last = end_of(key, *kept)
        lost = lost_to(
            last, await asyncio.to_thread(lambda: [key.seal(each) for each in head.read()])
        )
    except AuditError as error:
        return [Finding(Level.ERROR, AUDIT_LOG, "audit log", str(error), error.remedy)]
    if lost is not None:
        return [_missing(last, lost)]
    unsealed = await registry.read(lambda view: view.events_after(last.last_id, 1))
    if unsealed and now - unsealed[0].at > _SEALED_WITHIN:
        message = f"What came after event {last.last_id:,} isn't sealed: whoever may write to the "
        message += "registry can change it unnoticed."
        remedy = "Start the service; if it runs, its log says what keeps it from sealing."
        return [Finding(Level.WARNING, AUDIT_LOG, "audit log", message, remedy)]
    return [Finding(Level.OK, AUDIT_LOG, "audit log", f"Sealed up to event {last.last_id:,}.")]


def _missing(last: Seal | Floor, lost: int) -> Finding:
    return _wrong(
        f"events {last.last_id + 1} to {lost}",
        "They had been sealed, and the registry doesn't hold them.",
    )


def _wrong(subject: str, message: str) -> Finding:
    return Finding(Level.ERROR, AUDIT_LOG, subject, message, _REMEDY)
