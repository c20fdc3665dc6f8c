"""Retained messages: what the broker doesn't have is published, and nothing else."""

from collections.abc import Sequence
from datetime import timedelta

import pytest

from broker.ports.brokers import PublishError
from broker.protocol.names import DeviceId
from broker.protocol.topics import RETAINED_MARK, Desired, desired_topic
from broker.services.retained import RetainedMessages
from broker.services.tombstones import Tombstones
from tests.support.desk import Desk


class Broker:
    """Remembers what it is told to retain, until it is restarted."""

    def __init__(self) -> None:
        self.session: int | None = 1
        self.retained: dict[str, bytes] = {}
        self.published: list[str] = []
        self.takes = 1000

    async def mark(self) -> int:
        return int(self.retained.get(RETAINED_MARK, b"0"))

    async def retain(self, messages: Sequence[tuple[str, bytes]]) -> None:
        for topic, payload in messages:
            if len(self.published) >= self.takes:
                raise PublishError("the broker is away")
            self.retained[topic] = payload
            if topic != RETAINED_MARK:
                self.published.append(topic)

    def restart(self, memory: dict[str, bytes]) -> None:
        """Comes back with an older memory, or none."""
        assert self.session is not None
        self.session += 1
        self.retained = dict(memory)
        self.published = []
        self.takes = 1000


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def messages(desk: Desk, broker: Broker) -> RetainedMessages:
    return RetainedMessages(desk.registry, broker)


async def retain(desk: Desk, **payloads: bytes) -> None:
    await desk.write(("retain", payloads))


async def test_what_changed_is_published_once(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1", b=b"2")
    assert await messages.bring_up_to_date() == 2
    await retain(desk, a=b"3", b=b"2")
    assert await messages.bring_up_to_date() == 1
    assert await messages.bring_up_to_date() == 0
    assert broker.published == ["a", "b", "a"]
    assert broker.retained["a"] == b"3"


async def test_a_broker_that_forgot_is_told_all_again(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1", b=b"2")
    await messages.bring_up_to_date()
    broker.restart({})
    assert await messages.bring_up_to_date() == 2


async def test_a_broker_with_an_older_memory_is_told_what_is_newer(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1", b=b"2")
    await messages.bring_up_to_date()
    older = dict(broker.retained)
    await retain(desk, b=b"3")
    await messages.bring_up_to_date()
    broker.restart(older)
    await messages.bring_up_to_date()
    assert broker.published == ["b"]
    assert broker.retained["b"] == b"3"


async def test_a_service_that_restarts_publishes_nothing_that_the_broker_has(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1")
    await messages.bring_up_to_date()
    assert await RetainedMessages(desk.registry, broker).bring_up_to_date() == 0


async def test_a_registry_older_than_the_broker_s_memory_is_published_whole(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1")
    broker.retained = {RETAINED_MARK: b"7", "a": b"from the future"}
    assert await messages.bring_up_to_date() == 1
    assert broker.retained == {RETAINED_MARK: b"1", "a": b"1"}


async def test_a_broker_that_goes_away_gets_the_rest_later(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1")
    await retain(desk, b=b"2")
    broker.takes = 1
    with pytest.raises(PublishError):
        await messages.bring_up_to_date()
    assert RETAINED_MARK not in broker.retained
    broker.takes = 1000
    await messages.bring_up_to_date()
    assert broker.retained == {RETAINED_MARK: b"2", "a": b"1", "b": b"2"}


async def test_without_a_connection_nothing_is_tried(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, a=b"1")
    broker.session = None
    assert await messages.bring_up_to_date() == 0
    assert broker.published == []


async def test_more_than_one_page_arrives_in_the_order_of_its_stamps(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    for number in range(3):
        await retain(desk, **{f"t-{number}-{n:03d}": b"1" for n in range(300)})
    assert await messages.bring_up_to_date() == 900
    assert broker.published == sorted(broker.published)
    assert len(broker.retained) == 901


async def test_after_a_failure_what_may_not_have_arrived_is_published_again(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await retain(desk, **{f"t-{n:03d}": b"1" for n in range(900)})
    broker.takes = 600
    with pytest.raises(PublishError):
        await messages.bring_up_to_date()
    broker.takes = 10_000
    assert 300 <= await messages.bring_up_to_date() < 900
    assert len(broker.retained) == 901


ORDER = desired_topic(DeviceId("lamp-A1"), Desired.ROTATION)
UPDATE = desired_topic(DeviceId("lamp-A1"), Desired.UPDATE)


@pytest.fixture
def tombstones(desk: Desk, messages: RetainedMessages) -> Tombstones:
    return Tombstones(desk.registry, lambda: messages.told, desk.clock)


async def taken_back(desk: Desk, messages: RetainedMessages) -> None:
    """An order that the broker was told, and told to forget."""
    for payload in (b"order", b""):
        await desk.write(("retain", {ORDER: payload, "elsewhere": payload}))
        await messages.bring_up_to_date()


async def hours_later(desk: Desk, tombstones: Tombstones) -> None:
    await tombstones.drop()
    desk.clock.at += timedelta(hours=3)
    assert not await tombstones.drop()


async def is_kept(desk: Desk, topic: str) -> bool:
    return await desk.read("retained", topic) is not None


async def test_what_was_taken_back_long_ago_is_forgotten(
    desk: Desk, messages: RetainedMessages, tombstones: Tombstones
) -> None:
    await taken_back(desk, messages)
    await tombstones.drop()
    assert await is_kept(desk, ORDER)
    await hours_later(desk, tombstones)
    assert not await is_kept(desk, ORDER)
    assert await is_kept(desk, "elsewhere"), "there nobody can tell what a broker may hold"


async def test_what_is_retained_stays(
    desk: Desk, messages: RetainedMessages, tombstones: Tombstones
) -> None:
    await taken_back(desk, messages)
    await desk.write(("retain", {UPDATE: b"assignment"}))
    await messages.bring_up_to_date()
    await hours_later(desk, tombstones)
    assert await is_kept(desk, UPDATE)


async def test_nothing_is_forgotten_that_the_broker_was_not_told(
    desk: Desk, broker: Broker, messages: RetainedMessages, tombstones: Tombstones
) -> None:
    await desk.write(("retain", {ORDER: b"order"}))
    await messages.bring_up_to_date()
    old = dict(broker.retained)
    await desk.write(("retain", {ORDER: b""}))
    await messages.bring_up_to_date()
    await tombstones.drop()
    desk.clock.at += timedelta(hours=3)
    broker.restart(old)  # and it wasn't told yet
    assert not await tombstones.drop()
    assert await is_kept(desk, ORDER)


async def test_a_broker_with_a_memory_from_long_ago_forgets_what_has_no_tombstone(
    desk: Desk, broker: Broker, messages: RetainedMessages, tombstones: Tombstones
) -> None:
    await desk.join("A1")
    await desk.write(("retain", {ORDER: b"order", UPDATE: b"assignment"}))
    await messages.bring_up_to_date()
    old = dict(broker.retained)
    await desk.write(("retain", {ORDER: b""}))
    await messages.bring_up_to_date()
    await hours_later(desk, tombstones)
    assert not await is_kept(desk, ORDER)
    broker.restart(old)
    await messages.bring_up_to_date()
    assert (broker.retained[ORDER], broker.retained[UPDATE]) == (b"", b"assignment")


async def test_a_broker_that_is_newer_than_a_backup_forgets_what_the_backup_doesn_t_know(
    desk: Desk, broker: Broker, messages: RetainedMessages
) -> None:
    await desk.join("A1")
    await desk.write(("retain", {UPDATE: b"assignment"}))
    broker.retained = {RETAINED_MARK: b"99", ORDER: b"order"}
    await messages.bring_up_to_date()
    assert (broker.retained[ORDER], broker.retained[UPDATE]) == (b"", b"assignment")
