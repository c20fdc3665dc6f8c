"""Metadata on the fleet's broker: in an order that any reader survives, and no more of it."""

import pytest

from broker.core.records import Retained
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol import limits
from broker.protocol.topics import metadata_topic
from broker.services.update_metadata import GRACE, UpdateMetadata
from tests.support.desk import Desk
from tests.support.fake_updates import FakeRepository

FIRST = {
    "timestamp.json": b"t1",
    "1.snapshot.json": b"s1",
    "1.targets.json": b"all",
    "1.model-lamp.json": b"m1",
    "1.root.json": b"r1",
}
SECOND = {
    "timestamp.json": b"t2",
    "2.snapshot.json": b"s2",
    "1.targets.json": b"all",
    "2.model-lamp.json": b"m2",
    "1.root.json": b"r1",
    "2.root.json": b"r2",
}


@pytest.fixture
def repository() -> FakeRepository:
    return FakeRepository(metadata=dict(FIRST))


@pytest.fixture
def metadata(desk: Desk, repository: FakeRepository) -> UpdateMetadata:
    return UpdateMetadata(desk.registry, repository, desk.clock)


async def kept(desk: Desk) -> dict[str, bytes]:
    """By file name, in the order in which a broker is told."""
    found: list[Retained] = await desk.read("retained_after", 0, "", 1000)
    branch = metadata_topic("")
    return {each.topic.removeprefix(branch): each.payload for each in found}


async def test_everything_is_retained_unchanged_and_the_timestamp_last(
    desk: Desk, metadata: UpdateMetadata
) -> None:
    assert await metadata.bring_up_to_date()
    found = await kept(desk)
    assert found == FIRST
    assert next(iter(found)) == "1.root.json"
    assert list(found)[-2:] == ["1.snapshot.json", "timestamp.json"]
    assert not await metadata.bring_up_to_date()


async def test_what_is_new_comes_in_the_order_in_which_it_is_needed(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    await metadata.bring_up_to_date()
    repository.metadata = dict(SECOND)
    await metadata.bring_up_to_date()
    assert list(await kept(desk))[-4:] == [
        "2.root.json",
        "2.model-lamp.json",
        "2.snapshot.json",
        "timestamp.json",
    ]


async def test_who_reads_in_the_middle_finds_the_older_files_until_the_grace_is_over(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    await metadata.bring_up_to_date()
    repository.metadata = dict(SECOND)
    await metadata.bring_up_to_date()
    desk.clock.at += GRACE * 0.9
    await metadata.bring_up_to_date()
    assert (await kept(desk))["1.snapshot.json"] == b"s1"
    desk.clock.at += GRACE * 0.2
    assert await metadata.bring_up_to_date()
    found = {name: content for name, content in (await kept(desk)).items() if content}
    assert found == SECOND
    assert not await metadata.bring_up_to_date()


async def test_a_service_that_restarts_clears_what_its_last_life_left(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    await metadata.bring_up_to_date()
    repository.metadata = dict(SECOND)
    again = UpdateMetadata(desk.registry, repository, desk.clock)
    await again.bring_up_to_date()
    desk.clock.at += GRACE
    await again.bring_up_to_date()
    assert (await kept(desk))["1.model-lamp.json"] == b""


async def test_what_doesn_t_fit_into_a_message_is_said_and_nothing_is_changed(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    await metadata.bring_up_to_date()
    repository.metadata = {**SECOND, "2.targets.json": b"x" * (limits.MAX_METADATA + 1)}
    with pytest.raises(UpdateError) as refused:
        await metadata.bring_up_to_date()
    assert refused.value.code is UpdateCode.METADATA_TOO_LARGE
    assert await kept(desk) == FIRST


async def test_signing_is_asked_for_each_time(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    await metadata.bring_up_to_date()
    await metadata.bring_up_to_date()
    assert repository.refreshed == [desk.clock.at] * 2


async def test_a_home_without_a_repository_retains_nothing(
    desk: Desk, metadata: UpdateMetadata, repository: FakeRepository
) -> None:
    repository.metadata = {}
    assert not await metadata.bring_up_to_date()
    assert await kept(desk) == {}
