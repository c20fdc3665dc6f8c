"""Reading beside the writer: one moment, never in its way, and no writing."""

import asyncio
import threading
from typing import cast

import pytest

from broker.adapters.registry import SqlRegistry
from broker.ports.registry import DeviceFilter, ReadTransaction, RegistryError, WriteTransaction
from tests.support.registries import add_batch, add_member, member_ids, members
from tests.support.waiting import eventually


class Fault(Exception):
    """What a work raises in these tests."""


async def test_reading_goes_on_while_something_is_written(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    gate, written = threading.Event(), threading.Event()

    def slow(tx: WriteTransaction) -> None:
        add_member(tx, 1)
        tx.devices(DeviceFilter())  # sends what waits to the database
        written.set()
        assert gate.wait(60)

    writing = asyncio.create_task(registry.write(slow))
    await eventually(written.is_set)
    async with asyncio.timeout(60):
        assert await members(registry) == []
    gate.set()
    await writing
    assert await members(registry) == member_ids(1)


async def test_a_reading_work_sees_one_moment(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    gate, looked = threading.Event(), threading.Event()

    def look_twice(tx: ReadTransaction) -> list[int]:
        first = len(tx.devices(DeviceFilter()))
        looked.set()
        assert gate.wait(60)
        return [first, len(tx.devices(DeviceFilter()))]

    reading = asyncio.create_task(registry.read(look_twice))
    await eventually(looked.is_set)
    await registry.write(lambda tx: add_member(tx, 1))
    gate.set()
    assert await reading == [0, 0]


async def test_reading_cannot_write(registry: SqlRegistry) -> None:
    def work(tx: ReadTransaction) -> None:
        cast(WriteTransaction, tx).raise_counter("n")

    with pytest.raises(RegistryError):
        await registry.read(work)
    assert await registry.read(lambda tx: tx.counter("n")) == 0


async def test_a_reader_s_own_error_reaches_it(registry: SqlRegistry) -> None:
    def work(tx: ReadTransaction) -> None:
        raise Fault

    with pytest.raises(Fault):
        await registry.read(work)


async def test_many_readers_share_few_connections(registry: SqlRegistry) -> None:
    await registry.write(add_batch)
    await registry.write(lambda tx: add_member(tx, 1))
    found = await asyncio.gather(*(members(registry) for _ in range(50)))
    assert found == [member_ids(1)] * 50


async def test_a_reader_that_was_given_up_frees_its_place(url: str) -> None:
    gate, reached = threading.Event(), threading.Event()

    def hold(tx: ReadTransaction) -> None:
        reached.set()
        assert gate.wait(60)

    async with SqlRegistry(url, max_waiting=1) as registry:
        reading = asyncio.create_task(registry.read(hold))
        await eventually(reached.is_set)
        with pytest.raises(RegistryError) as refused:
            await registry.read(lambda tx: tx.counter("n"))
        assert refused.value.code == "registry_busy"
        reading.cancel()
        await asyncio.wait([reading])
        gate.set()

        async def is_free() -> bool:
            try:
                return await registry.read(lambda tx: tx.counter("n")) == 0
            except RegistryError:
                return False

        await eventually(is_free)
