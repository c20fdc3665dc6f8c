"""Retained messages: what the broker doesn't have is published, and nothing else."""

from collections.abc import Sequence

import pytest

from broker.ports import PublishError
from broker.protocol.topics import RETAINED_MARK
from broker.services.retained import RetainedMessages
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
