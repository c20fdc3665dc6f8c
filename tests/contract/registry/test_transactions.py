"""Works share a commit, and none is harmed by its neighbours."""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from broker.adapters.registry import SqlRegistry
from broker.core.records import Enrollment
from broker.ports.registry import ReadTransaction, RegistryConflict, RegistryError, WriteTransaction
from broker.protocol.names import GroupName, SerialNumber
from tests.support.records import NOW, a_device, a_group
from tests.support.registries import (
    add_batch,
    add_member,
    certificate_number,
    device_number,
    held_writer,
    member_ids,
    members,
)
from tests.support.waiting import eventually

Work = Callable[[WriteTransaction], Any]


class Fault(Exception):
    """What a work raises in these tests."""


class Member:
    """A work that adds one member, and counts how often it ran."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.runs = 0

    def __call__(self, tx: WriteTransaction) -> int:
        self.runs += 1
        add_member(tx, self.number)
        return self.number


def fails_before_writing(tx: WriteTransaction) -> None:
    assert tx.group(a_group().name) is not None
    raise Fault


def fails_after_writing(tx: WriteTransaction) -> None:
    add_member(tx, 666)
    raise Fault


def breaks_a_rule_when_it_is_sent(tx: WriteTransaction) -> None:
    tx.save_device(a_device(group=GroupName("nobody")))


def hides_a_broken_rule(tx: WriteTransaction) -> None:
    nobody = Enrollment(GroupName("nobody"), SerialNumber("A1"), NOW)
    with pytest.raises(RegistryConflict):
        tx.add_enrollments([nobody])


async def test_a_work_that_fails_leaves_nothing(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    with pytest.raises(Fault):
        await registry.write(fails_after_writing)
    assert await members(registry) == []
    assert await registry.read(lambda tx: tx.pending_replies(9)) == []
    assert await registry.read(lambda tx: tx.group(a_group().name)) == a_group()


@pytest.mark.parametrize(
    ("bad", "error", "runs"),
    [
        (fails_before_writing, Fault, 1),
        (fails_after_writing, Fault, 2),
        (breaks_a_rule_when_it_is_sent, RegistryConflict, 2),
        (hides_a_broken_rule, RegistryConflict, 2),
    ],
)
async def test_a_bad_work_spoils_nothing_for_its_neighbours(
    registry: SqlRegistry, bad: Work, error: type[Exception], runs: int
) -> None:
    await registry.write(add_batch)
    before, after = Member(1), Member(2)
    async with held_writer(registry):
        tasks = [asyncio.create_task(registry.write(work)) for work in (before, bad, after)]
        await asyncio.sleep(0)
    assert await tasks[0] == 1
    assert await tasks[2] == 2
    with pytest.raises(error):
        await tasks[1]
    assert await members(registry) == member_ids(1, 2)
    group = await registry.read(lambda tx: tx.group(a_group().name))
    assert group == a_group(devices=2)
    assert before.runs == runs


def holds_a_number_that_no_database_keeps(tx: WriteTransaction) -> None:
    add_member(tx, 666)
    tx.save_certificate(certificate_number(666, rotation_order=10**30))


async def test_a_number_out_of_all_bounds_spoils_nothing_for_its_neighbours(
    registry: SqlRegistry,
) -> None:
    await registry.write(add_batch)
    async with held_writer(registry):
        works = (Member(1), holds_a_number_that_no_database_keeps, Member(2))
        tasks = [asyncio.create_task(registry.write(work)) for work in works]
        await asyncio.sleep(0)
    first, bad, last = await asyncio.gather(*tasks, return_exceptions=True)
    assert (first, last) == (1, 2)
    assert isinstance(bad, OverflowError | RegistryError)
    assert await members(registry) == member_ids(1, 2)


async def test_an_error_reaches_only_its_caller_and_each_has_its_own(
    registry: SqlRegistry,
) -> None:
    async with held_writer(registry):
        tasks = [
            asyncio.create_task(registry.write(breaks_a_rule_when_it_is_sent)) for _ in range(2)
        ]
        await asyncio.sleep(0)
    errors = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(error) for error in errors] == [RegistryConflict] * 2
    assert errors[0] is not errors[1]


@pytest.mark.parametrize("error", [SystemExit, StopIteration, asyncio.CancelledError])
async def test_the_writer_survives_whatever_a_work_raises(
    registry: SqlRegistry, error: type[BaseException]
) -> None:
    def work(tx: WriteTransaction) -> None:
        raise error

    task = asyncio.create_task(_caught(registry, work))
    assert isinstance(await task, error | RuntimeError)
    assert await registry.write(lambda tx: tx.raise_counter("alive")) == 1


async def _caught(registry: SqlRegistry, work: Work) -> BaseException | None:
    try:
        await registry.write(work)
    except BaseException as error:
        return error
    return None


def _note(ran: list[int], number: int, _: WriteTransaction) -> None:
    ran.append(number)


async def test_works_run_in_the_order_they_came(registry: SqlRegistry) -> None:
    ran: list[int] = []
    async with held_writer(registry):
        tasks = [
            asyncio.create_task(registry.write(partial(_note, ran, number)))
            for number in range(600)
        ]
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert ran == list(range(600))


async def test_a_work_sees_what_its_neighbour_wrote(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    async with held_writer(registry):
        first = asyncio.create_task(registry.write(lambda tx: add_member(tx, 1)))
        second = asyncio.create_task(
            registry.write(lambda tx: (tx.device(device_number(1).id), tx.group(a_group().name)))
        )
        await asyncio.sleep(0)
    await first
    assert await second == (device_number(1), a_group(devices=1))


async def test_a_neighbour_s_certificate_and_reply_are_seen(registry: SqlRegistry) -> None:
    await registry.write(add_batch)

    def look(tx: WriteTransaction) -> tuple[object, ...]:
        wanted = certificate_number(1)
        return (
            tx.certificate_by_fingerprint(wanted.certificate_sha256),
            tx.certificates_of([wanted.device_id]),
            [reply.id for reply in tx.pending_replies(9)],
        )

    async with held_writer(registry):
        first = asyncio.create_task(registry.write(lambda tx: add_member(tx, 1)))
        second = asyncio.create_task(registry.write(look))
        await asyncio.sleep(0)
    await first
    assert await second == (certificate_number(1), [certificate_number(1)], ["1"])


async def test_two_hundred_writers_at_once(registry: SqlRegistry) -> None:
    await registry.write(add_batch)

    def work(number: int, tx: WriteTransaction) -> int:
        add_member(tx, number)
        return tx.raise_counter("turn")

    async with asyncio.TaskGroup() as tasks:
        turns = [tasks.create_task(registry.write(partial(work, n))) for n in range(200)]
    assert sorted(turn.result() for turn in turns) == list(range(1, 201))
    assert await members(registry) == member_ids(*range(200))
    group = await registry.read(lambda tx: tx.group(a_group().name))
    assert group == a_group(devices=200)


async def test_two_registries_on_one_database_are_one_writer(url: str) -> None:
    async def raise_often(registry: SqlRegistry) -> list[int]:
        return [await registry.write(lambda tx: tx.raise_counter("turn")) for _ in range(25)]

    async with SqlRegistry(url) as one, SqlRegistry(url) as other:
        turns = await asyncio.gather(raise_often(one), raise_often(other))
    assert sorted(turns[0] + turns[1]) == list(range(1, 51))


async def test_too_much_waiting_is_refused(url: str) -> None:
    async with SqlRegistry(url, max_waiting=2) as registry:
        async with held_writer(registry):
            waiting = [
                asyncio.create_task(registry.write(lambda tx: tx.raise_counter("n")))
                for _ in range(2)
            ]
            await asyncio.sleep(0)
            with pytest.raises(RegistryError) as refused:
                await registry.write(lambda tx: tx.raise_counter("n"))
        assert refused.value.code == "registry_busy"
        assert await asyncio.gather(*waiting) == [1, 2]
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 3


async def test_a_caller_who_gives_up_waiting_takes_only_its_own_work_back(
    registry: SqlRegistry,
) -> None:
    await registry.write(add_batch)
    works = [Member(number) for number in range(3)]
    async with held_writer(registry):
        tasks = [asyncio.create_task(registry.write(work)) for work in works]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
    assert [await tasks[0], await tasks[2]] == [0, 2]
    assert [work.runs for work in works] == [1, 0, 1]
    assert await members(registry) == member_ids(0, 2)


async def test_a_caller_who_gives_up_during_its_work_disturbs_nobody(
    registry: SqlRegistry,
) -> None:
    await registry.write(add_batch)
    gate, reached = threading.Event(), threading.Event()

    def slow(tx: WriteTransaction) -> None:
        add_member(tx, 1)
        reached.set()
        assert gate.wait(60)

    given_up = asyncio.create_task(registry.write(slow))
    await eventually(reached.is_set)
    neighbour = asyncio.create_task(registry.write(lambda tx: add_member(tx, 2)))
    given_up.cancel()
    await asyncio.wait([given_up])
    assert given_up.cancelled()
    gate.set()
    await neighbour
    assert await members(registry) == member_ids(1, 2)


async def test_stopping_finishes_what_waits(url: str) -> None:
    registry = SqlRegistry(url)
    await registry.start()
    gate, reached = threading.Event(), threading.Event()

    def hold(tx: ReadTransaction) -> None:
        reached.set()
        assert gate.wait(60)

    held = asyncio.create_task(registry.write(hold))
    await eventually(reached.is_set)
    waiting = [
        asyncio.create_task(registry.write(lambda tx: tx.raise_counter("n"))) for _ in range(3)
    ]
    await asyncio.sleep(0)
    stopping = asyncio.create_task(registry.stop())
    await asyncio.sleep(0)
    with pytest.raises(RegistryError) as refused:
        await registry.write(lambda tx: tx.raise_counter("n"))
    assert refused.value.code == "registry_closed"
    gate.set()
    await stopping
    await held
    assert await asyncio.gather(*waiting) == [1, 2, 3]
    assert [t.name for t in threading.enumerate() if t.name.startswith("registry")] == []


async def test_a_registry_that_is_not_open_says_so(url: str) -> None:
    registry = SqlRegistry(url)
    for _ in range(2):
        with pytest.raises(RegistryError, match="isn't open") as refused:
            await registry.write(lambda tx: tx.raise_counter("n"))
        assert refused.value.code == "registry_closed"
        with pytest.raises(RegistryError, match="isn't open"):
            await registry.read(lambda tx: tx.counter("n"))
        await registry.stop()
    async with registry:
        assert await registry.write(lambda tx: tx.raise_counter("n")) == 1


async def test_what_was_written_is_there_after_a_restart(url: str) -> None:
    async with SqlRegistry(url) as registry:
        await registry.write(add_batch)
        await registry.write(lambda tx: add_member(tx, 1))
    async with SqlRegistry(url) as registry:
        assert await members(registry) == member_ids(1)
        found = await registry.read(lambda tx: tx.certificates_of([device_number(1).id]))
        assert found == [certificate_number(1)]
