"""A client whose CONNECT is held back half-way: the broker has verified its certificate already."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from device_client import packets
from device_client.packets import ConnAck, Packet, Publication, SubAck
from tests.support.certificates import Client

_BEGINNING: Final = 5
_CHUNK: Final = 65_536
_KEEPALIVE_S: Final = 60
_TIMEOUT_S: Final = 60.0


class HeldHandshake:
    """TLS is done, and CONNECT has begun; it's completed when it is told to."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client_id: str
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = packets.Decoder()
        self._arrived: list[Packet] = []
        packet = packets.connect(client_id, _KEEPALIVE_S)
        writer.write(packet[:_BEGINNING])
        self._rest = packet[_BEGINNING:]

    @classmethod
    @asynccontextmanager
    async def begin(cls, port: int, client: Client) -> AsyncIterator[Self]:
        """With the client's certificate, and under its name."""
        context = await asyncio.to_thread(client.context)
        reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
        try:
            yield cls(reader, writer, client.name)
        finally:
            writer.transport.abort()

    async def go_on(self) -> None:
        """Completes CONNECT; the broker must let it in."""
        self._writer.write(self._rest)
        assert await self._next(ConnAck) == ConnAck(0)

    async def ask(self, topic: str, payload: bytes, *answers: str) -> Publication:
        """Publishes, and returns what comes on one of the topics `answers`."""
        self._writer.write(packets.subscribe(1, answers))
        assert await self._next(SubAck) == SubAck(1, granted=True)
        self._writer.write(packets.publish(2, topic, payload))
        answer = await self._next(Publication)
        assert isinstance(answer, Publication)
        return answer

    async def _next(self, kind: type[Packet]) -> Packet:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                while self._arrived:
                    packet = self._arrived.pop(0)
                    if isinstance(packet, kind):
                        return packet
                data = await self._reader.read(_CHUNK)
                assert data, "the broker has ended the connection"
                self._arrived += self._decoder.feed(data)
