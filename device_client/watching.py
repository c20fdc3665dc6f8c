"""What is heard on some topics of a connection, held for who reads it."""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Final

from device_client.errors import ConnectionLost
from device_client.packets import Publication

log = logging.getLogger(__name__)

MAX_WAITING: Final = 64
"""Messages that a watch holds unread; more are dropped, as QoS 1 is a hop and not a promise."""
MAX_WAITING_BYTES: Final = 1 << 20
"""Payload that a watch holds unread; a device hasn't the memory for many of the largest."""


class Watch:
    """The messages on some topics, in the order in which they came."""

    def __init__(self, filters: Sequence[str], ended: asyncio.Future[None]) -> None:
        """Only `Connection.watch` makes one; `ended` is done when nothing comes any more."""
        self._filters = [one.split("/") for one in filters]
        self._ended = ended
        self._waiting: deque[Publication] = deque()
        self._waiting_bytes = 0
        self._arrived = asyncio.Event()

    async def next(self) -> Publication:
        """The next message; waits for it as long as it takes.

        Raises:
            ConnectionLost: the connection ended.
        """
        while not self._waiting:
            self._arrived.clear()
            await self._until_something_happens()
            if self._ended.done() and not self._waiting:
                raise ConnectionLost("The connection was lost. The broker may be restarting.")
        message = self._waiting.popleft()
        self._waiting_bytes -= len(message.payload)
        return message

    def take(self, message: Publication) -> bool:
        """Keeps the message if it's on one of the topics; whether it is."""
        levels = message.topic.split("/")
        if not any(_matches(one, levels) for one in self._filters):
            return False
        size = self._waiting_bytes + len(message.payload)
        if len(self._waiting) >= MAX_WAITING or size > MAX_WAITING_BYTES:
            log.warning("too many messages at once: one on %s was dropped", message.topic)
            return True
        self._waiting_bytes = size
        self._waiting.append(message)
        self._arrived.set()
        return True

    async def _until_something_happens(self) -> None:
        arrival = asyncio.ensure_future(self._arrived.wait())
        try:
            await asyncio.wait((arrival, self._ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            arrival.cancel()


def _matches(levels: Sequence[str], topic: Sequence[str]) -> bool:
    """Whether a filter, cut into levels, covers the topic (MQTT 3.1.1, 4.7.1)."""
    for index, level in enumerate(levels):
        if level == "#":
            return True
        if index >= len(topic) or level not in ("+", topic[index]):
            return False
    return len(levels) == len(topic)
