"""What a sender can make the service remember is bounded, and everybody's turn comes in order."""

import asyncio
from dataclasses import dataclass, field

import pytest
from paho.mqtt.client import MQTTMessage

from broker.entry.mqtt.inbox import Arrived, Inbox
from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import ConfirmRequest

SESSION = 3


@dataclass
class Desk:
    """Serves when the test lets it."""

    served: list[Arrived] = field(default_factory=list)
    may_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, arrived: Arrived) -> None:
        self.served.append(arrived)
        await self.may_go.wait()

    @property
    def payloads(self) -> list[bytes]:
        return [arrived.payload for arrived in self.served]


def message(payload: bytes, qos: int = 1) -> MQTTMessage:
    made = MQTTMessage(mid=7, topic=b"t")
    made.payload, made.qos = payload, qos
    return made


async def served(*messages: MQTTMessage) -> list[Arrived]:
    desk = Desk()
    desk.may_go.set()
    async with asyncio.TaskGroup() as tasks:
        inbox = Inbox(10, desk.serve)
        for each in messages:
            inbox.take(each, SESSION, tasks)
    return desk.served


async def test_qos_0_is_not_kept() -> None:
    assert await served(message(b"x", qos=0)) == []


async def test_what_arrived_says_by_which_connection() -> None:
    (arrived,) = await served(message(b"x"))
    assert arrived == Arrived(SESSION, 7, "t", b"x", retained=False)


async def test_a_payload_over_the_limit_is_cut_and_still_too_large() -> None:
    (arrived,) = await served(message(b"x" * 250_000))
    assert len(arrived.payload) == limits.MAX_REQUEST + 1
    with pytest.raises(Refused) as refused:
        codec.decode(arrived.payload, ConfirmRequest)
    assert refused.value.code is Code.PAYLOAD_TOO_LARGE


async def test_the_largest_request_is_kept_whole() -> None:
    (arrived,) = await served(message(b"x" * limits.MAX_REQUEST))
    assert len(arrived.payload) == limits.MAX_REQUEST


async def test_no_more_are_in_hand_than_was_said_and_the_others_come_in_order() -> None:
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        inbox = Inbox(2, desk.serve)
        for payload in (b"1", b"2", b"3", b"4"):
            inbox.take(message(payload), SESSION, tasks)
        await asyncio.sleep(0)
        assert desk.payloads == [b"1", b"2"]
        desk.may_go.set()
    assert desk.payloads == [b"1", b"2", b"3", b"4"]


async def test_those_in_line_are_dropped_with_their_connection() -> None:
    desk = Desk()
    async with asyncio.TaskGroup() as tasks:
        inbox = Inbox(1, desk.serve)
        inbox.take(message(b"in hand"), SESSION, tasks)
        inbox.take(message(b"in line"), SESSION, tasks)
        await asyncio.sleep(0)
        inbox.forget()
        inbox.take(message(b"of the next"), SESSION + 1, tasks)
        desk.may_go.set()
    assert desk.payloads == [b"in hand", b"of the next"]
