"""The stretch between guard and core: bytes in memory, in the shape that amqtt reads and writes."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from amqtt.adapters import ReaderAdapter, WriterAdapter

from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.framing import FrameSplitter

_AT_A_STRETCH: Final = 32
"""Reads of one client, some three a packet, before others have their turn."""


class CoreReader(ReaderAdapter):
    """What the core reads of one client. `waiting` bytes are still unread."""

    def __init__(self) -> None:
        self._stream = asyncio.StreamReader()
        self._has_ended = False
        self._reads = 0
        self.waiting = 0

    def feed(self, data: bytes) -> None:
        """Appends bytes that the gate let through; after the end they go nowhere."""
        if not self._has_ended:
            self.waiting += len(data)
            self._stream.feed_data(data)

    def feed_eof(self) -> None:
        """Ends the stream."""
        self._has_ended = True
        self._stream.feed_eof()

    async def read(self, n: int = -1) -> bytes:
        """Exactly `n` bytes, as amqtt expects; short only at the end of the stream. (amqtt reads
        what is here without a pause, in which it couldn't even be cancelled.)"""
        self._reads += 1
        if self._reads % _AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        data = await (self._stream.read() if n < 0 else self._stream.readexactly(n))
        self.waiting -= len(data)
        return data


class CoreWriter(WriterAdapter):
    """What the core writes to one client: whole packets go to `on_frame`. Writing never waits;
    who has much to send may wait for `room`."""

    def __init__(
        self,
        peer: tuple[str, int],
        on_frame: Callable[[bytes], None],
        room: Callable[[], Awaitable[None]],
    ) -> None:
        self._peer = peer
        self._on_frame = on_frame
        self.room = room
        self._splitter = FrameSplitter()
        self._closed = False

    def write(self, data: bytes) -> None:
        """Passes on the packets that `data` completes.

        Raises:
            ConnectionResetError: the connection has ended.
        """
        if self._closed:
            raise ConnectionResetError("the connection has ended")
        self._splitter.feed(data)
        while (frame := self._splitter.next_frame()) is not None:
            self._on_frame(frame)

    async def drain(self) -> None:
        """Nothing to wait for."""

    def get_peer_info(self) -> tuple[str, int]:
        """The client's address and port."""
        return self._peer

    def get_ssl_info(self) -> None:
        """The guard has authenticated the client; the core knows nothing of it."""

    async def close(self) -> None:
        """The core is done with the client."""
        self._closed = True


class Outbox:
    """Packets on their way to a client: `limit` bytes and one packet more at most, so that one that
    doesn't read pins no more memory than that."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[bytes] = deque()
        self._filled = asyncio.Event()
        self._taken = asyncio.Event()
        self.waiting = 0

    @property
    def is_crowded(self) -> bool:
        """Whether it is time to slow down whoever fills it."""
        return self.waiting > self._limit // 2

    def put(self, frame: bytes) -> None:
        """Appends a packet.

        Raises:
            Ended: STALLED when there is no room.
        """
        if self.waiting > self._limit:
            raise Ended(Ending.STALLED, f"{self.waiting} bytes unread")
        self._frames.append(frame)
        self.waiting += len(frame)
        self._filled.set()

    async def take(self, at_least: int) -> bytes:
        """Waits for packets, then takes them off, stopping once there are `at_least` bytes."""
        await self._filled.wait()
        batch = bytearray()
        while self._frames and len(batch) < at_least:
            batch += self._frames.popleft()
        self.waiting -= len(batch)
        if not self._frames:
            self._filled.clear()
        self._taken.set()
        return bytes(batch)

    async def room(self) -> None:
        """Waits until it isn't crowded."""
        while self.is_crowded:
            self._taken.clear()
            await self._taken.wait()
