"""Assignments, reports and what devices run."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.update_records import DeviceUpdate, GivenAssignment, KnownReport
from broker.ports.registry import RegistryError, WriteTransaction
from broker.protocol.names import DeviceId
from broker.protocol.updates import Phase
from tests.support.records import NOW, a_fingerprint
from tests.support.registries import add_batch, device_number

LAMP = DeviceId("lamp-1")


def an_assignment(number: int = 1, sequence: int = 1) -> GivenAssignment:
    return GivenAssignment(
        device_id=device_number(number).id,
        sequence=sequence,
        rollout="r1",
        nonce="n" * 32,
        issued_at=NOW,
        expires=NOW + timedelta(days=number),
        targets=(("lamp/2.bin", a_fingerprint("image")), ("modem/1.bin", a_fingerprint("modem"))),
    )


def a_report(report_id: str = "a", sequence: int = 1) -> KnownReport:
    return KnownReport(
        LAMP, report_id, a_fingerprint("text"), "r1", sequence, Phase.INSTALLED, NOW, NOW
    )


@pytest.fixture
async def fleet(registry: SqlRegistry) -> SqlRegistry:
    """`lamp-1` to `lamp-3`."""

    def work(tx: WriteTransaction) -> None:
        add_batch(tx)
        for number in (1, 2, 3):
            tx.save_device(device_number(number))

    await registry.write(work)
    return registry


async def test_an_assignment_is_kept_as_it_is(fleet: SqlRegistry) -> None:
    call = replace(an_assignment(1, 2), targets=(), calls_back=1, settled_at=NOW)
    for each in (an_assignment(), call):
        await fleet.write(lambda tx, each=each: tx.save_assignment(each))  # type: ignore[misc]
    assert await fleet.read(lambda tx: tx.given_assignment(LAMP, 1)) == an_assignment()
    assert await fleet.read(lambda tx: tx.given_assignment(LAMP, 2)) == call
    assert await fleet.read(lambda tx: tx.given_assignment(LAMP, 3)) is None


async def test_what_expires_is_found_until_it_is_settled(fleet: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        for number in (3, 1, 2):
            tx.save_assignment(an_assignment(number))
        tx.save_assignment(replace(an_assignment(1), settled_at=NOW))

    await fleet.write(work)
    before = NOW + timedelta(days=5)
    found = await fleet.read(lambda tx: tx.expiring_assignments(before, 10))
    assert found == [an_assignment(2), an_assignment(3)]
    assert await fleet.read(lambda tx: tx.expiring_assignments(before, 1)) == found[:1]
    early = NOW + timedelta(days=2)
    assert await fleet.read(lambda tx: tx.expiring_assignments(early, 10)) == []


async def test_a_report_is_kept_as_it_is(fleet: SqlRegistry) -> None:
    full = replace(a_report("b", 2), phase=Phase.REFUSED, code="no_space", detail="3 MiB")
    for each in (a_report(), full):
        await fleet.write(lambda tx, each=each: tx.add_report(each))  # type: ignore[misc]
    assert await fleet.read(lambda tx: tx.report(LAMP, "a")) == a_report()
    assert await fleet.read(lambda tx: tx.final_report(LAMP, 2)) == full
    assert await fleet.read(lambda tx: tx.final_report(LAMP, 3)) is None
    assert await fleet.read(lambda tx: tx.reports_of(LAMP, 10)) == [full, a_report()]
    assert await fleet.read(lambda tx: tx.report(DeviceId("lamp-2"), "a")) is None


@pytest.mark.parametrize("again", [a_report("a", 2), a_report("b", 1)])
async def test_neither_an_id_nor_an_end_is_counted_twice(
    fleet: SqlRegistry, again: KnownReport
) -> None:
    await fleet.write(lambda tx: tx.add_report(a_report()))
    with pytest.raises(RegistryError):
        await fleet.write(lambda tx: tx.add_report(again))
    assert await fleet.read(lambda tx: tx.reports_of(LAMP, 10)) == [a_report()]


async def test_a_write_sees_its_own_report(fleet: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> KnownReport | None:
        tx.add_report(a_report())
        return tx.final_report(LAMP, 1)

    assert await fleet.write(work) == a_report()


async def test_what_a_device_runs_is_kept_as_it_is(fleet: SqlRegistry) -> None:
    bare = DeviceUpdate(DeviceId("lamp-2"))
    full = DeviceUpdate(
        LAMP,
        7,
        "r1",
        3,
        {"lamp/2.bin": "2.0"},
        1 << 31,
        NOW,
        NOW,
        Phase.ROLLED_BACK,
        "health_check_failed",
        (a_fingerprint("a"), a_fingerprint("b")),
    )
    for each in (replace(full, sequence=6), bare, full):
        await fleet.write(lambda tx, each=each: tx.save_device_update(each))  # type: ignore[misc]
    assert await fleet.read(lambda tx: tx.device_update(LAMP)) == full
    ids = [LAMP, bare.device_id, DeviceId("lamp-3")]
    assert await fleet.read(lambda tx: tx.device_updates(ids)) == [full, bare]


async def test_those_past_their_support_are_counted(fleet: SqlRegistry) -> None:
    def work(tx: WriteTransaction) -> None:
        for number, until in ((1, NOW), (2, NOW + timedelta(days=1)), (3, None)):
            tx.save_device_update(DeviceUpdate(device_number(number).id, support_until=until))

    await fleet.write(work)
    assert await fleet.read(lambda tx: tx.count_unsupported(NOW)) == 1
    assert await fleet.read(lambda tx: tx.count_unsupported(NOW - timedelta(seconds=1))) == 0


async def test_the_topics_of_a_branch_are_those_that_retain_something(fleet: SqlRegistry) -> None:
    kept = {"a/b/1": b"x", "a/b/2": b"", "a/b": b"x", "a/b0": b"x", "a/c/1": b"x"}
    await fleet.write(lambda tx: tx.retain(kept))
    assert await fleet.read(lambda tx: tx.retained_below("a/b/")) == ["a/b/1"]
