"""The audit log's digest and the segments that seals cover."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from broker.core.audit_chain import LONGEST, SEGMENT, START, Floor, Seal, chained, sealed
from broker.core.records import Event, EventKind

NOON = datetime(2030, 6, 1, 12, tzinfo=UTC)
EVENT = Event(NOON, EventKind.CLAIM_ACCEPTED, "lamp-A1", "A1", "batch-7", id=1)


def events(*numbers: int, at: datetime = NOON) -> list[Event]:
    return [replace(EVENT, id=number, at=at) for number in numbers]


def test_the_digest_is_what_its_documentation_says() -> None:
    text = b'[1,1906545600000000,"claim.accepted","lamp-A1","A1","batch-7",null,null,null,null,1]'
    assert chained(START, [EVENT]) == hashlib.sha256(bytes(32) + text).hexdigest()


def test_the_digest_of_all_is_that_of_the_later_behind_the_earlier() -> None:
    assert chained(chained(START, events(1, 2)), events(3)) == chained(START, events(1, 2, 3))


def test_no_event_can_be_left_out_or_moved() -> None:
    whole = chained(START, events(1, 2, 3))
    assert chained(START, events(1, 3)) != whole
    assert chained(START, events(2, 1, 3)) != whole


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", 2),
        ("at", NOON + timedelta(microseconds=1)),
        ("kind", EventKind.CLAIM_REFUSED),
        ("device_id", "lamp-A2"),
        ("serial_number", "A2"),
        ("claim_name", "batch-8"),
        ("client_id", "lamp-A1"),
        ("group", "lamps"),
        ("code", "rate_limited"),
        ("detail", "by hand"),
        ("repeated", 2),
    ],
)
def test_every_field_counts(field: str, value: Any) -> None:
    assert chained(START, [replace(EVENT, **{field: value})]) != chained(START, [EVENT])


def test_bytes_in_a_column_of_text_are_another_event() -> None:
    forged = replace(EVENT, detail=cast(str, b"by hand"))
    assert chained(START, [forged]) != chained(START, [replace(EVENT, detail="by hand")])


def test_the_first_seal_follows_the_floor() -> None:
    floor = Floor(number=4, last_id=9, events=9, digest=chained(START, events(1)))
    seal = sealed(floor, events(10, 12))
    assert seal == Seal(
        number=5,
        after_id=9,
        last_id=12,
        events=2,
        since=NOON,
        until=NOON,
        digest=chained(floor.digest, events(10, 12)),
    )


def test_a_seal_with_room_grows() -> None:
    first = sealed(Floor(), events(1, 2))
    later = NOON + LONGEST
    assert sealed(first, events(3, at=later)) == replace(
        first, last_id=3, events=3, until=later, digest=chained(first.digest, events(3, at=later))
    )


def test_a_clock_set_back_moves_no_seal_s_end_back() -> None:
    first = sealed(Floor(), events(1))
    assert sealed(first, events(2, at=NOON - timedelta(hours=1))).until == NOON


@pytest.mark.parametrize(("more", "number"), [(SEGMENT - 1, 1), (SEGMENT, 2)])
def test_a_full_seal_is_followed_by_the_next(more: int, number: int) -> None:
    first = sealed(Floor(), events(1))
    grown = sealed(first, events(*range(2, 2 + more)))
    assert (grown.number, grown.last_id) == (number, 1 + more)
    assert grown.after_id == (0 if number == 1 else 1)


def test_an_event_too_late_for_a_seal_begins_the_next() -> None:
    first = sealed(Floor(), events(1))
    late = NOON + LONGEST + timedelta(microseconds=1)
    seal = sealed(first, events(2, at=late))
    assert (seal.number, seal.after_id, seal.since) == (2, 1, late)


def test_what_was_lost_begins_the_next_seal() -> None:
    first = sealed(Floor(), events(1, 2))
    seal = sealed(first, events(3), lost_to=2)
    assert (seal.number, seal.after_id, seal.lost_to) == (2, 2, 2)
