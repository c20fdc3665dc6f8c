"""The audit log, the outbox and counters."""

from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.records import Event, EventKind, Reply
from broker.ports.registry import EventFilter, WriteTransaction
from broker.protocol.codes import Code
from broker.protocol.zones import Zone
from tests.support.records import NOW
from tests.support.registries import a_reply, an_event


async def add_events(registry: SqlRegistry, *events: Event) -> None:
    def work(tx: WriteTransaction) -> None:
        for event in events:
            tx.add_event(event)

    await registry.write(work)


async def test_an_event_is_kept_as_it_is_and_numbered(registry: SqlRegistry) -> None:
    bare = Event(at=NOW, kind=EventKind.SERVICE_STARTED)
    full = an_event(
        at=NOW + timedelta(microseconds=1), code="serial_taken", repeated=3, detail="100 % é"
    )
    await add_events(registry, bare, full)
    newest, oldest = await registry.read(lambda tx: tx.events(EventFilter()))
    assert newest.id is not None
    assert oldest.id is not None
    assert newest.id > oldest.id
    assert oldest == Event(at=NOW, kind=EventKind.SERVICE_STARTED, id=oldest.id)
    assert newest == an_event(
        at=full.at, code="serial_taken", repeated=3, detail="100 % é", id=newest.id
    )


async def test_a_code_is_kept_by_its_value(registry: SqlRegistry) -> None:
    await add_events(registry, an_event(code=Code.SERIAL_TAKEN))
    (event,) = await registry.read(lambda tx: tx.events(EventFilter()))
    assert event.code == "serial_taken"


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (EventFilter(), ["3", "2", "1"]),
        (EventFilter(device_id="lamp-1"), ["1"]),
        (EventFilter(serial_number="S2"), ["2"]),
        (EventFilter(claim_name="batch-7"), ["2", "1"]),
        (EventFilter(kind=EventKind.CLAIM_REFUSED), ["3"]),
        (EventFilter(kind=EventKind.CLAIM_REFUSED, claim_name="batch-7"), []),
        (EventFilter(limit=1), ["3"]),
    ],
)
async def test_events_are_found_by_what_they_are_about(
    registry: SqlRegistry, wanted: EventFilter, found: list[str]
) -> None:
    await add_events(
        registry,
        an_event(detail="1", device_id="lamp-1"),
        an_event(detail="2", serial_number="S2"),
        an_event(detail="3", claim_name="batch-8", kind=EventKind.CLAIM_REFUSED),
    )
    events = await registry.read(lambda tx: tx.events(wanted))
    assert [event.detail for event in events] == found


async def test_events_are_paged(registry: SqlRegistry) -> None:
    await add_events(registry, *(an_event(detail=str(n)) for n in range(5)))
    page = await registry.read(lambda tx: tx.events(EventFilter(limit=2)))
    wanted = EventFilter(before_id=page[-1].id, limit=2)
    rest = await registry.read(lambda tx: tx.events(wanted))
    assert [event.detail for event in page + rest] == ["4", "3", "2", "1"]


async def test_replies_wait_oldest_first_until_they_are_removed(registry: SqlRegistry) -> None:
    replies = [a_reply(id=name) for name in "cb"] + [a_reply(id="a", zone=Zone.FLEET)]

    def work(tx: WriteTransaction) -> None:
        for reply in replies:
            tx.add_reply(reply)
        assert tx.pending_replies(10) == replies

    await registry.write(work)
    assert await registry.read(lambda tx: tx.pending_replies(2)) == replies[:2]
    await registry.write(lambda tx: tx.remove_replies(["c", "unknown", "b"]))
    assert await registry.read(lambda tx: tx.pending_replies(10)) == replies[2:]
    await registry.write(lambda tx: tx.remove_replies([]))


async def test_a_payload_is_any_bytes(registry: SqlRegistry) -> None:
    reply = a_reply(payload=bytes(range(256)))
    await registry.write(lambda tx: tx.add_reply(reply))
    assert await registry.read(lambda tx: tx.pending_replies(1)) == [reply]


async def test_adding_and_removing_keep_their_order_within_a_work(registry: SqlRegistry) -> None:
    newer = a_reply(payload=b"newer")

    def work(tx: WriteTransaction) -> None:
        tx.remove_replies([newer.id])
        tx.add_reply(newer)

    await registry.write(lambda tx: tx.add_reply(a_reply()))
    await registry.write(work)
    assert await registry.read(lambda tx: tx.pending_replies(10)) == [newer]


async def test_a_reply_removed_in_the_work_that_added_it_is_gone(registry: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.add_reply(a_reply())
        tx.remove_replies([a_reply().id])

    await registry.write(work)
    assert await registry.read(lambda tx: tx.pending_replies(10)) == []


async def test_a_counter_rises_by_one(registry: SqlRegistry) -> None:
    assert await registry.read(lambda tx: tx.counter("crl")) == 0
    assert await registry.write(lambda tx: tx.raise_counter("crl")) == 1
    assert await registry.write(lambda tx: tx.raise_counter("crl")) == 2
    assert await registry.write(lambda tx: tx.raise_counter("other")) == 1
    assert await registry.read(lambda tx: tx.counter("crl")) == 2


async def test_replies_of_one_zone_are_found_behind_many_of_the_other(
    registry: SqlRegistry,
) -> None:
    def work(tx: WriteTransaction) -> None:
        for number in range(5):
            tx.add_reply(Reply(f"c{number}", Zone.CLAIM, "t", b"", NOW))
        tx.add_reply(Reply("f", Zone.FLEET, "t", b"", NOW))

    await registry.write(work)
    (found,) = await registry.read(lambda tx: tx.pending_replies(2, Zone.FLEET))
    assert found.id == "f"
