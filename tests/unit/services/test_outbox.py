"""The outbox: published after the commit, forgotten after that, and never lost between."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from broker.core.records import Reply
from broker.ports.brokers import PublishError
from broker.ports.registry import RegistryError
from broker.protocol.zones import Zone
from broker.services.outbox import Outbox
from tests.support.desk import Desk
from tests.support.operating import NOW


class Broker:
    """Takes messages, until it is told to be away."""

    def __init__(self) -> None:
        self.taken: list[tuple[Zone, str, bytes]] = []
        self.takes = 1000

    async def publish(self, zone: Zone, topic: str, payload: bytes) -> None:
        if len(self.taken) >= self.takes:
            raise PublishError("the broker is away")
        self.taken.append((zone, topic, payload))

    @property
    def topics(self) -> list[str]:
        return [topic for _, topic, _ in self.taken]


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def outbox(desk: Desk, broker: Broker) -> Outbox:
    return Outbox(desk.registry, broker)


def reply(number: int, zone: Zone = Zone.CLAIM) -> Reply:
    return Reply(f"id-{number}", zone, f"t/{number}", b"payload", NOW + timedelta(seconds=number))


async def committed(desk: Desk, *replies: Reply) -> None:
    await desk.write(*(("add_reply", each) for each in replies))


async def test_a_reply_is_published_and_then_forgotten(
    desk: Desk, broker: Broker, outbox: Outbox
) -> None:
    await committed(desk, reply(1))
    await outbox.send(reply(1))
    assert broker.taken == [(Zone.CLAIM, "t/1", b"payload")]
    assert await desk.replies() == [reply(1)]
    await outbox.clear_sent()
    assert await desk.replies() == []


async def test_a_reply_that_the_broker_didn_t_take_stays(
    desk: Desk, broker: Broker, outbox: Outbox
) -> None:
    await committed(desk, reply(1))
    broker.takes = 0
    with pytest.raises(PublishError):
        await outbox.send(reply(1))
    await outbox.clear_sent()
    assert await desk.replies() == [reply(1)]


async def test_what_an_earlier_life_left_behind_is_published_in_its_order(
    desk: Desk, broker: Broker, outbox: Outbox
) -> None:
    await committed(desk, *(reply(n) for n in range(5)), reply(9, Zone.FLEET))
    assert await outbox.resend(Zone.CLAIM) == 5
    assert broker.topics == [f"t/{n}" for n in range(5)]
    await outbox.clear_sent()
    assert await desk.replies() == [reply(9, Zone.FLEET)]
    assert await outbox.resend(Zone.CLAIM) == 0


async def test_what_was_sent_already_isn_t_published_again(
    desk: Desk, broker: Broker, outbox: Outbox
) -> None:
    await committed(desk, reply(1))
    await outbox.send(reply(1))
    assert await outbox.resend(Zone.CLAIM) == 0
    assert broker.topics == ["t/1"]


async def test_when_the_broker_goes_away_meanwhile_the_rest_stays(
    desk: Desk, broker: Broker, outbox: Outbox
) -> None:
    await committed(desk, *(reply(n) for n in range(5)))
    broker.takes = 2
    with pytest.raises(PublishError):
        await outbox.resend(Zone.CLAIM)
    await outbox.clear_sent()
    assert await desk.replies() == [reply(n) for n in range(2, 5)]
    broker.takes = 1000
    assert await outbox.resend(Zone.CLAIM) == 3


async def test_what_couldn_t_be_cleared_is_cleared_later(desk: Desk, broker: Broker) -> None:
    registry: Any = desk.registry
    outbox = Outbox(registry, broker)
    await committed(desk, reply(1), reply(2))
    await outbox.send(reply(1))
    await outbox.send(reply(2))
    await registry.stop()
    with pytest.raises(RegistryError):
        await outbox.clear_sent()
    await registry.start()
    assert len(await desk.replies()) == 2
    await outbox.clear_sent()
    assert await desk.replies() == []


async def test_an_interrupted_clearing_is_done_later(desk: Desk, outbox: Outbox) -> None:
    await committed(desk, reply(1))
    await outbox.send(reply(1))
    clearing = asyncio.create_task(outbox.clear_sent())
    await asyncio.sleep(0)
    clearing.cancel()
    await asyncio.gather(clearing, return_exceptions=True)
    await outbox.clear_sent()
    assert await desk.replies() == []


async def test_to_clear_nothing_is_harmless(desk: Desk, outbox: Outbox) -> None:
    await outbox.clear_sent()
    assert await desk.replies() == []


async def test_a_thousand_sends_are_cleared_together(desk: Desk, outbox: Outbox) -> None:
    replies = [reply(n) for n in range(1000)]
    await committed(desk, *replies)
    await asyncio.gather(*(outbox.send(each) for each in replies))
    await outbox.clear_sent()
    assert await desk.replies() == []
