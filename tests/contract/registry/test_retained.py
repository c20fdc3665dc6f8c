"""What topics are to retain: kept once each, and ordered by when it changed."""

from broker.adapters.registry import SqlRegistry
from broker.core.records import Retained
from broker.ports.registry import WriteTransaction


async def retain(registry: SqlRegistry, **messages: bytes) -> None:
    await registry.write(lambda tx: tx.retain(messages))


async def all_of(registry: SqlRegistry, stamp: int = 0, topic: str = "") -> list[Retained]:
    return await registry.read(lambda tx: tx.retained_after(stamp, topic, 100))


async def test_what_changes_together_shares_a_stamp_and_is_ordered_by_topic(
    registry: SqlRegistry,
) -> None:
    await retain(registry, b=b"1", a=b"2")
    await retain(registry, c=b"3")
    first, second, third = await all_of(registry)
    assert [(r.topic, r.payload) for r in (first, second, third)] == [
        ("a", b"2"),
        ("b", b"1"),
        ("c", b"3"),
    ]
    assert first.stamp == second.stamp < third.stamp


async def test_paging_goes_on_in_the_middle_of_a_stamp(registry: SqlRegistry) -> None:
    await retain(registry, a=b"1", b=b"2", c=b"3")
    (first,) = await registry.read(lambda tx: tx.retained_after(0, "", 1))
    rest = await all_of(registry, first.stamp, first.topic)
    assert [r.topic for r in rest] == ["b", "c"]
    assert await all_of(registry, rest[-1].stamp, "c") == []


async def test_a_change_moves_to_the_end_and_the_same_again_stays_where_it_is(
    registry: SqlRegistry,
) -> None:
    await retain(registry, a=b"1", b=b"2")
    await retain(registry, a=b"new", b=b"2")
    assert [(r.topic, r.payload) for r in await all_of(registry)] == [("b", b"2"), ("a", b"new")]
    before = await all_of(registry)
    await retain(registry, a=b"new")
    assert await all_of(registry) == before


async def test_nothing_to_retain_is_kept_as_such(registry: SqlRegistry) -> None:
    await retain(registry, a=b"1")
    await retain(registry, a=b"")
    kept = await registry.read(lambda tx: tx.retained("a"))
    assert kept is not None
    assert kept.payload == b""
    assert await registry.read(lambda tx: tx.retained("b")) is None


async def test_a_write_sees_what_it_retained_itself(registry: SqlRegistry) -> None:
    def twice(tx: WriteTransaction) -> None:
        tx.retain({"a": b"1"})
        tx.retain({"a": b"2"})

    await registry.write(twice)
    (kept,) = await all_of(registry)
    assert kept.payload == b"2"


async def test_tombstones_are_dropped_up_to_a_stamp_and_below_a_branch(
    registry: SqlRegistry,
) -> None:
    for payload in (b"1", b""):
        for topic in ("d/a", "d/b", "d/c", "e/a"):
            await registry.write(lambda tx, t=topic, p=payload: tx.retain({t: p}))  # type: ignore[misc]
    await registry.write(lambda tx: tx.retain({"d/kept": b"1"}))

    async def drop(stamp: int, limit: int) -> int:
        return await registry.write(lambda tx: tx.drop_tombstones("d/", stamp, limit))

    async def floor() -> int:
        return await registry.read(lambda tx: tx.counter("retained.floor"))

    assert (await drop(4, 10), await floor()) == (0, 0)
    assert (await drop(6, 1), await floor()) == (1, 5)
    assert (await drop(6, 10), await floor()) == (1, 6)
    assert [each.topic for each in await all_of(registry)] == ["d/c", "e/a", "d/kept"]
    assert (await drop(99, 10), await floor()) == (1, 7)
    assert [each.topic for each in await all_of(registry)] == ["e/a", "d/kept"]
