"""Importing allow-lists: checked first, kept in chunks, and run again without harm."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from broker.core.records import EventKind
from broker.ports.registry import EventFilter, Registry
from broker.protocol.names import GroupName, SerialNumber
from broker.services import enrollments, groups
from broker.services.enrollments import CHUNK, SHOWN, Imported
from broker.services.problems import Problem, ProblemCode
from broker.services.serial_file import BadLine
from tests.support.operating import SetClock, fresh_registry
from tests.unit.services.test_groups import group

LAMPS = GroupName("lamps")


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    async with fresh_registry(tmp_path) as opened:
        await groups.apply(opened, SetClock(), [group("lamps")])
        yield opened


def numbered(count: int) -> list[SerialNumber]:
    return [SerialNumber(f"A-{number:06}") for number in range(count)]


async def count(registry: Registry) -> int:
    return await registry.read(lambda view: view.count_enrollments(LAMPS))


async def import_all(
    registry: Registry, entries: list[SerialNumber | BadLine], heard: list[int] | None = None
) -> Imported:
    sink: list[int] = [] if heard is None else heard
    return await enrollments.import_serials(registry, SetClock(), LAMPS, entries, sink.append)


async def test_serial_numbers_are_kept_chunk_by_chunk(registry: Registry) -> None:
    heard: list[int] = []
    done = await import_all(registry, [*numbered(CHUNK + 10)], heard)
    assert done == Imported(added=CHUNK + 10, known=0, bad=0)
    assert heard == [CHUNK, 10]
    assert await count(registry) == CHUNK + 10


async def test_the_same_again_adds_nothing_and_leaves_no_event(registry: Registry) -> None:
    await import_all(registry, [*numbered(5)])
    assert await import_all(registry, [*numbered(7)]) == Imported(added=2, known=5, bad=0)
    assert await import_all(registry, [*numbered(7)]) == Imported(added=0, known=7, bad=0)
    found = await registry.read(
        lambda view: view.events(EventFilter(kind=EventKind.ENROLLMENTS_IMPORTED))
    )
    assert [event.detail for event in found] == ["2 serial numbers", "5 serial numbers"]


async def test_a_serial_number_twice_in_the_file_counts_once(registry: Registry) -> None:
    assert await import_all(registry, [*numbered(3), *numbered(3)]) == Imported(3, 3, 0)


async def test_bad_lines_are_passed_over(registry: Registry) -> None:
    entries: list[SerialNumber | BadLine] = [*numbered(2), BadLine(3, "why"), BadLine(4, "why")]
    assert await import_all(registry, entries) == Imported(added=2, known=0, bad=2)


async def test_what_was_kept_before_an_interruption_stays_and_the_rest_follows(
    registry: Registry,
) -> None:
    everything = numbered(CHUNK + 10)

    def cut() -> Iterator[SerialNumber]:
        yield from everything[:CHUNK]
        raise OSError("the stick was pulled out")

    with pytest.raises(OSError, match="pulled out"):
        await enrollments.import_serials(registry, SetClock(), LAMPS, cut(), lambda _: None)
    assert await count(registry) == CHUNK
    assert await import_all(registry, [*everything]) == Imported(added=10, known=CHUNK, bad=0)


async def test_without_the_group_nothing_is_kept(registry: Registry) -> None:
    nobody = GroupName("nobody")
    with pytest.raises(Problem) as caught:
        await enrollments.import_serials(registry, SetClock(), nobody, numbered(1), lambda _: None)
    assert caught.value.code is ProblemCode.GROUP_UNKNOWN
    with pytest.raises(Problem, match="nobody"):
        await enrollments.require_group(registry, nobody)
    await enrollments.require_group(registry, LAMPS)


def test_a_check_counts_everything_and_keeps_little() -> None:
    heard: list[int] = []
    bad = [BadLine(number, "why") for number in range(1, 3 * SHOWN)]
    found = enrollments.check([*numbered(CHUNK), *bad], heard.append)
    assert (found.good, found.bad) == (CHUNK, len(bad))
    assert found.first_bad == tuple(bad[:SHOWN])
    assert sum(heard) == CHUNK + len(bad)
