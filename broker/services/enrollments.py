"""Importing an allow-list: checked whole first, then kept in chunks that can be run again."""

import asyncio
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Final

from broker.core.records import Enrollment, Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol.names import GroupName, SerialNumber
from broker.services.problems import unknown_group
from broker.services.serial_file import BadLine

CHUNK: Final = 5_000
"""Serial numbers a transaction: few enough that a running service hardly waits for one."""

SHOWN: Final = 20
"""Bad lines that are kept word for word; the rest is counted."""


@dataclass(frozen=True)
class Check:
    """What a file holds."""

    good: int
    bad: int
    first_bad: tuple[BadLine, ...]


@dataclass(frozen=True)
class Imported:
    """What an import did."""

    added: int
    known: int
    """Serial numbers that were on the list already, or twice in the file."""
    bad: int


def check(entries: Iterable[SerialNumber | BadLine], progress: Callable[[int], None]) -> Check:
    """Reads all of the file without keeping any; `progress` hears how many lines more were read."""
    good = bad = 0
    first_bad: list[BadLine] = []
    for chunk in _chunks(entries):
        for entry in chunk:
            if isinstance(entry, BadLine):
                bad += 1
                if bad <= SHOWN:
                    first_bad.append(entry)
            else:
                good += 1
        progress(len(chunk))
    return Check(good, bad, tuple(first_bad))


async def import_serials(
    registry: Registry,
    clock: Clock,
    group: GroupName,
    entries: Iterable[SerialNumber | BadLine],
    progress: Callable[[int], None],
) -> Imported:
    """Puts the serial numbers on the group's allow-list, passing over bad lines.

    Each chunk is durable with its audit event before the next is read, and what is there already
    isn't added again: after a kill the same import is simply run again.

    Raises:
        Problem: GROUP_UNKNOWN.
    """
    added = total = bad = 0
    chunks = _chunks(entries)
    while chunk := await asyncio.to_thread(next, chunks, None):
        serials = [entry for entry in chunk if not isinstance(entry, BadLine)]
        added += await _keep(registry, group, serials, clock.now())
        total += len(serials)
        bad += len(chunk) - len(serials)
        progress(len(chunk))
    return Imported(added, total - added, bad)


async def preview_import(
    registry: Registry, group: GroupName, entries: Iterable[SerialNumber | BadLine]
) -> Imported:
    """What `import_serials` would do; nothing is changed. Remembers each new serial number, so that
    one that stands twice in the file counts once.

    Raises:
        Problem: GROUP_UNKNOWN.
    """
    await require_group(registry, group)
    new: set[SerialNumber] = set()
    total = bad = 0
    chunks = _chunks(entries)
    while chunk := await asyncio.to_thread(next, chunks, None):
        serials = [entry for entry in chunk if not isinstance(entry, BadLine)]
        new.update(set(serials) - await _known(registry, group, serials))
        total += len(serials)
        bad += len(chunk) - len(serials)
    return Imported(len(new), total - len(new), bad)


async def require_group(registry: Registry, name: GroupName) -> None:
    """Returns when there is such a group.

    Raises:
        Problem: GROUP_UNKNOWN.
    """
    if await registry.read(lambda view: view.group(name)) is None:
        raise unknown_group(name)


async def _known(
    registry: Registry, group: GroupName, serials: list[SerialNumber]
) -> set[SerialNumber]:
    return await registry.read(lambda view: view.enrolled(group, serials))


async def _keep(
    registry: Registry, group: GroupName, serials: list[SerialNumber], now: datetime
) -> int:
    def work(view: WriteTransaction) -> int:
        if view.group(group) is None:
            raise unknown_group(group)
        added = view.add_enrollments(Enrollment(group, serial, now) for serial in serials)
        if added:
            detail = f"{added} serial numbers"
            view.add_event(Event(now, EventKind.ENROLLMENTS_IMPORTED, group=group, detail=detail))
        return added

    return await registry.write(work) if serials else 0


def _chunks(
    entries: Iterable[SerialNumber | BadLine],
) -> Iterator[list[SerialNumber | BadLine]]:
    waiting = iter(entries)
    while chunk := list(islice(waiting, CHUNK)):
        yield chunk
