"""The audit log's chain: one digest over all events, sealed now and then by a signature.

Whoever may write to the registry may change events. He can't sign: the seals' key isn't there. So
each event counts in a digest, and the digest up to some event is signed, which makes every earlier
one as it was then (docs/adr/0023-a-sealed-audit-log.md).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from broker.core.records import Event
from broker.protocol import codec

SEGMENT: Final = 500
"""Events that one seal may cover: dropping them holds the registry for an instant only."""
LONGEST: Final = timedelta(days=1)
"""Between the first and the last event of one seal, so that age can be told by seals."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
START: Final = "0" * 64
"""The digest before the first event."""


@dataclass(frozen=True, kw_only=True)
class Seal:
    """What is signed about a segment of the log, which begins behind another's end."""

    number: int
    """1 for the first; no number is left out. The newest grows until it's full."""
    after_id: int
    """The last event before it."""
    last_id: int
    events: int
    since: datetime
    until: datetime
    """The latest moment of its events."""
    digest: str
    """Over all events up to its last one, in hexadecimal."""
    lost_to: int | None = None
    """The last event that had been sealed before the registry was found to lack some of them: a
    backup was restored. None when nothing was lost."""


@dataclass(frozen=True, kw_only=True)
class Floor:
    """What is signed about the events that are dropped: all up to `last_id`, as is their due."""

    number: int = 0
    """The last segment that was dropped; 0 when none was."""
    last_id: int = 0
    events: int = 0
    """How many were dropped, ever."""
    digest: str = START


@dataclass(frozen=True)
class Signed:
    """A seal or the floor, as text, and its signature in base64."""

    statement: str
    signature: str


def chained(digest: str, events: Iterable[Event]) -> str:
    """The digest that follows when these events do, in the order of their numbers.

    SHA-256 over the digest before (32 bytes) and the event as a compact JSON array: number,
    moment in microseconds since 1970, kind, device, serial number, claim certificate, client id,
    group, code, detail, repetitions.
    """
    known = bytes.fromhex(digest)
    for event in events:
        known = hashlib.sha256(known + _canonical(event)).digest()
    return known.hex()


def _canonical(event: Event) -> bytes:
    fields: list[object] = [
        event.id,
        (event.at - _EPOCH) // _MICROSECOND,
        event.kind.value,
        event.device_id,
        event.serial_number,
        event.claim_name,
        event.client_id,
        event.group,
        event.code,
        event.detail,
        event.repeated,
    ]
    if bytes in map(type, fields):
        # SQLite keeps bytes in a column of text, and JSON writes text for them: they aren't it.
        return codec.encode([[each.hex()] if isinstance(each, bytes) else each for each in fields])
    return codec.encode(fields)


def sealed(last: Seal | Floor, events: list[Event], lost_to: int | None = None) -> Seal:
    """The seal that covers these events, which follow `last`: the same one grown, or the next.

    Args:
        events: at least one and at most `SEGMENT`, all that follow, in the order of their numbers.
        lost_to: as in `Seal`; then it is the next.
    """
    moments = [event.at for event in events]
    newest = events[-1].id or 0
    digest = chained(last.digest, events)
    if isinstance(last, Seal) and lost_to is None and _has_room(last, len(events), max(moments)):
        return replace(
            last,
            last_id=newest,
            events=last.events + len(events),
            until=max(last.until, *moments),
            digest=digest,
        )
    return Seal(
        number=last.number + 1,
        after_id=last.last_id,
        last_id=newest,
        events=len(events),
        since=moments[0],
        until=max(moments),
        digest=digest,
        lost_to=lost_to,
    )


def _has_room(seal: Seal, more: int, until: datetime) -> bool:
    return seal.events + more <= SEGMENT and until - seal.since <= LONGEST
