"""Requests as they arrive: so many in hand at once, the others in line in the order they came."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from paho.mqtt.client import MQTTMessage

from broker.protocol import limits


@dataclass(frozen=True)
class Arrived:
    """One message, and by which connection it came: its id means nothing on another."""

    session: int
    mid: int
    topic: str
    payload: bytes
    retained: bool


class Inbox:
    """Serves what arrives, bounded by what the broker has in flight.

    With QoS 1 the broker sends no more than so many messages before they are acknowledged. QoS 0
    knows no such bound, so it's dropped: the protocol has no use for it. A payload over the limit
    is cut, which keeps it over the limit: its sender is told, and memory isn't its sender's to use.
    """

    def __init__(self, at_once: int, serve: Callable[[Arrived], Awaitable[None]]) -> None:
        """`serve` doesn't raise."""
        self._at_once = at_once
        self._serve = serve
        self._in_line: deque[Arrived] = deque()
        self._in_hand = 0

    def take(self, message: MQTTMessage, session: int, tasks: asyncio.TaskGroup) -> None:
        """Serves the message in a task of `tasks`, at once or when its turn comes."""
        if message.qos == 0:
            return
        payload = bytes(message.payload[: limits.MAX_REQUEST + 1])
        self._in_line.append(Arrived(session, message.mid, message.topic, payload, message.retain))
        if self._in_hand < self._at_once:
            self._in_hand += 1
            tasks.create_task(self._serve_the_line())

    def forget(self) -> None:
        """Drops those that nobody has begun to serve: their connection has ended."""
        self._in_line.clear()

    async def _serve_the_line(self) -> None:
        try:
            while self._in_line:
                await self._serve(self._in_line.popleft())
        finally:
            self._in_hand -= 1
