"""The audit log, sealed and dropped by segments: who changes it in the registry is found out."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from broker.adapters.audit_files import AuditFolder, FileAuditHead, FileAuditKey
from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.engine import writing_engine
from broker.core.findings import Level
from broker.core.records import Event, EventKind
from broker.ports.audit import AuditError
from broker.ports.registry import EventFilter, RegistryError, WriteTransaction
from broker.services.audit_seals import AuditSeals
from broker.services.audit_verification import examine_audit, verify
from broker.services.retention import Retention
from tests.support.operating import NOW, SetClock

KEEP = timedelta(days=30)


class Log:
    """An audit log, its key, and what happens to them."""

    def __init__(self, url: str, registry: SqlRegistry, folder: AuditFolder) -> None:
        self.url = url
        self.registry = registry
        self.clock = SetClock()
        self.key = FileAuditKey.opened(folder, b"a passphrase")
        self.head = FileAuditHead(folder)
        self.seals = self.service()
        self.retention = Retention(registry, self.key, self.clock, KEEP)

    def service(self) -> AuditSeals:
        """Another life of the one that seals."""
        return AuditSeals(self.registry, self.key, self.head, self.clock)

    async def happen(self, count: int, detail: str = "") -> None:
        """Events at this moment; each ends the segment before when a day has passed."""

        def work(tx: WriteTransaction) -> None:
            for number in range(count):
                at = self.clock.at + timedelta(microseconds=number)
                said = f"{detail}{number}"
                tx.add_event(Event(at, EventKind.SERVICE_STARTED, detail=said, repeated=number))

        await self.registry.write(work)

    async def seal(self) -> None:
        while await self.seals.seal():
            pass

    async def days(self, count: int, each: int = 3) -> None:
        """Each with some events, which one seal covers."""
        for _ in range(count):
            await self.happen(each)
            await self.seal()
            self.clock.at += timedelta(days=1, minutes=1)

    async def drop(self) -> int:
        """How many segments."""
        dropped = 0
        while await self.retention.drop():
            dropped += 1
        return dropped

    async def tamper(self, statement: str) -> None:
        """What somebody writes who has the database, and no key."""

        def run() -> None:
            engine = writing_engine(self.url)
            with engine.begin() as connection:
                connection.execute(sa.text(statement))
            engine.dispose()

        await asyncio.to_thread(run)

    async def wrong(self) -> list[str]:
        """What 'muster events verify' finds wrong."""
        found = [each async for each in verify(self.registry, self.key, self.head)]
        return [each.subject for each in found if each.level is not Level.OK]

    async def numbers(self) -> list[int]:
        events = await self.registry.read(lambda tx: tx.events(EventFilter(limit=10_000)))
        return sorted(each.id or 0 for each in events)


@pytest.fixture
async def log(url: str, registry: SqlRegistry, tmp_path: Path) -> Log:
    return await asyncio.to_thread(Log, url, registry, AuditFolder(tmp_path))


async def test_what_is_sealed_and_untouched_is_right(log: Log) -> None:
    assert await log.wrong() == []
    await log.days(3)
    await log.happen(2)
    assert await log.wrong() == []
    log.seals = log.service()
    await log.seal()
    assert await log.wrong() == []
    (ok,) = await examine_audit(log.registry, log.key, log.head, log.clock.at)
    assert (ok.level, ok.message) == (Level.OK, "Sealed up to event 11.")


async def test_more_than_one_seal_covers_is_sealed_in_segments(log: Log) -> None:
    await log.happen(1203)
    await log.seal()
    assert len(await log.registry.read(lambda tx: tx.audit_seals(0, 100))) == 3
    assert await log.wrong() == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET detail = 'nothing' WHERE id = 5",
        "UPDATE event SET at = at + 1 WHERE id = 5",
        "UPDATE event SET device_id = 'lamp-1' WHERE id = 5",
        "UPDATE event SET repeated = 9 WHERE id = 5",
        "DELETE FROM event WHERE id = 5",
        "DELETE FROM event WHERE id BETWEEN 4 AND 6",
    ],
)
async def test_who_changes_or_removes_an_event_is_found_out(log: Log, statement: str) -> None:
    await log.days(3)
    await log.tamper(statement)
    assert await log.wrong() == ["events 4 to 6"]


async def test_who_adds_events_before_the_first_is_found_out(log: Log) -> None:
    """No seal covers them, as they're where the log begins, or where events were dropped."""
    added = "INSERT INTO event (id, at, kind, repeated) SELECT {0}, at, kind, 1 FROM event"
    await log.days(40)
    await log.tamper(added.format(-5) + " WHERE id = 1")
    assert await log.wrong() == ["events up to -5"]
    await log.drop()
    assert await log.wrong() == []
    await log.tamper(added.format(7) + " WHERE id = 40")
    assert await log.wrong() == ["events up to 7"]


@pytest.mark.parametrize("kind", ["sqlite"], indirect=True)
async def test_bytes_that_are_written_like_the_text_are_found_out(log: Log) -> None:
    """SQLite takes them in any column. Who asks for the text doesn't find such an event."""
    event = Event(log.clock.at, EventKind.SERVICE_STARTED, device_id="lamp")
    await log.registry.write(lambda tx: tx.add_event(event))
    await log.seal()
    await log.tamper("UPDATE event SET device_id = x'95a9a9'")  # "lamp" in base64
    assert await log.wrong() == ["events 1 to 1"]


@pytest.mark.parametrize("change", ["kind = 'nothing'", "at = 9000000000000000000"])
async def test_what_can_t_be_read_is_said_and_so_is_that_sealing_has_stopped(
    log: Log, change: str
) -> None:
    await log.days(2)
    await log.happen(2)
    await log.tamper(f"UPDATE event SET {change} WHERE id = 8")  # noqa: S608 - of constants
    for reads in (log.seals.seal, log.wrong):
        with pytest.raises(RegistryError, match="event 8 can't be read") as refused:
            await reads()
        assert refused.value.remedy
    log.clock.at += timedelta(hours=1)
    (finding,) = await examine_audit(log.registry, log.key, log.head, log.clock.at)
    assert (finding.level, finding.subject) == (Level.WARNING, "audit log")


async def test_who_has_the_database_keep_events_out_is_found_out(log: Log, kind: str) -> None:
    await log.days(1)
    program = "CREATE RULE silence AS ON INSERT TO event DO INSTEAD NOTHING"
    if kind == "sqlite":
        program = "CREATE TRIGGER silence AFTER INSERT ON event BEGIN DELETE FROM event; END"
    await log.tamper(program)
    try:
        assert await log.wrong() == ["silence"]
    finally:
        await log.tamper(
            "DROP " + ("TRIGGER silence" if kind == "sqlite" else "RULE silence ON event")
        )
    assert await log.wrong() == []


async def test_a_seal_under_another_s_number_doesn_t_keep_it_busy(log: Log) -> None:
    await log.days(3)
    old = "SELECT 1000, last_id, statement, signature FROM audit_seal WHERE number = 1"
    await log.tamper(f"INSERT INTO audit_seal {old}")
    async with asyncio.timeout(60):
        assert await log.wrong() == ["events 1 to 3"]


async def test_who_removes_seals_is_found_out(log: Log) -> None:
    await log.days(3)
    await log.tamper("DELETE FROM audit_seal WHERE number = 2")
    assert await log.wrong() == ["events 7 to 9"]


async def test_who_cuts_the_end_off_is_found_out(log: Log) -> None:
    await log.days(3)
    await log.tamper("DELETE FROM audit_seal WHERE number = 3")
    await log.tamper("DELETE FROM event WHERE id > 6")
    assert await log.wrong() == ["events 7 to 9"]
    (finding,) = await examine_audit(log.registry, log.key, log.head, log.clock.at)
    assert finding.level is Level.ERROR


async def test_who_forges_a_seal_is_found_out(log: Log) -> None:
    await log.days(2)
    await log.tamper("UPDATE audit_seal SET statement = replace(statement, 'event', 'Event')")
    assert await log.wrong() == ["seals"]
    with pytest.raises(AuditError) as refused:
        await log.service().seal()
    assert refused.value.code == "audit_forged"


async def test_a_seal_is_no_leave_to_drop_what_is_before_it(log: Log) -> None:
    await log.days(3)
    await log.tamper("DELETE FROM event WHERE id <= 3")
    await log.tamper("UPDATE audit_seal SET number = 0, last_id = 3 WHERE number = 1")
    assert await log.wrong() == ["seals"]


async def test_after_a_restored_backup_it_goes_on_and_says_so(log: Log) -> None:
    await log.days(3)
    await log.tamper("DELETE FROM audit_seal WHERE number = 3")
    await log.tamper("DELETE FROM event WHERE id > 6")
    log.seals = log.service()
    await log.happen(1)
    await log.seal()
    gaps = await log.registry.read(lambda tx: tx.events(EventFilter(kind=EventKind.AUDIT_GAP)))
    assert len(gaps) == 1
    assert len(await log.wrong()) == 1, "a warning, for ever, where it was"
    await log.days(2)
    log.seals = log.service()
    await log.seal()
    assert len(await log.wrong()) == 1
    (ok,) = await examine_audit(log.registry, log.key, log.head, log.clock.at)
    assert ok.level is Level.OK


async def test_a_kill_between_registry_and_head_loses_nothing(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.days(1)

    def dies(_: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(log.head, "write", dies)
        await log.happen(2)
        with pytest.raises(OSError, match="killed"):
            await log.seals.seal()
    for seals in (log.seals, log.service()):
        log.seals = seals
        await log.happen(1)
        await log.seal()
    assert await log.wrong() == []


async def test_what_is_too_old_is_dropped_and_the_rest_verifies(log: Log) -> None:
    await log.days(40)
    assert await log.drop() == 11
    assert await log.numbers() == list(range(34, 121))
    assert await log.wrong() == []
    assert await log.drop() == 0
    log.seals = log.service()
    await log.days(2)
    assert await log.drop() == 2
    assert await log.wrong() == []


async def test_the_newest_stay_however_old(log: Log) -> None:
    await log.days(2)
    log.clock.at += timedelta(days=1000)
    assert await log.drop() == 1
    assert await log.numbers() == [4, 5, 6]
    await log.happen(1)
    assert (await log.numbers())[-1] == 7, "no number is given twice"


async def test_without_an_end_nothing_is_dropped(log: Log) -> None:
    await log.days(40)
    log.retention = Retention(log.registry, log.key, log.clock, None)
    assert await log.drop() == 0


async def test_what_was_tampered_with_isn_t_dropped(log: Log) -> None:
    await log.days(40)
    await log.tamper("UPDATE event SET detail = 'nothing' WHERE id = 5")
    assert await log.retention.drop()
    with pytest.raises(AuditError) as refused:
        await log.retention.drop()
    assert refused.value.code == "audit_altered"
    assert (await log.numbers())[0] == 4
    assert await log.wrong() == ["events 4 to 6"]


async def test_who_drops_events_by_hand_is_found_out_below_a_floor_too(log: Log) -> None:
    await log.days(40)
    await log.drop()
    await log.tamper("DELETE FROM event WHERE id <= 36")
    assert await log.wrong() == ["events 34 to 36"]


async def test_events_are_read_in_their_order(log: Log) -> None:
    await log.happen(5)
    found = await log.registry.read(lambda tx: tx.events_after(2, 2))
    assert [each.id for each in found] == [3, 4]
    assert found[0].at == NOW + timedelta(microseconds=2)
