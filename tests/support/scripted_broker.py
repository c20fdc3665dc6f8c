"""A broker that does nothing of its own accord: a test says what it sends and sees what it gets."""

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum

from broker.adapters.brokers.embedded.framing import FrameSplitter
from broker.protocol.zones import Zone
from tests.support.certificates import Certificates

_WITHIN_S = 60.0


class Kind(IntEnum):
    """MQTT 3.1.1 control packets (OASIS MQTT 3.1.1, table 2.1) that a link sends."""

    CONNECT = 1
    PUBLISH = 3
    PUBACK = 4
    SUBSCRIBE = 8
    PINGREQ = 12
    DISCONNECT = 14


class Served:
    """One connection of a client, whose CONNECT and SUBSCRIBE were answered already."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._splitter = FrameSplitter()

    async def accept(self, granted: int | None = 1) -> None:
        """Answers CONNECT and one SUBSCRIBE.

        Args:
            granted: the return code of the subscription, 0x80 refuses it; with none it isn't
                answered.
        """
        assert (await self.packet())[0] is Kind.CONNECT
        self._writer.write(b"\x20\x02\x00\x00")
        kind, body = await self.packet()
        assert kind is Kind.SUBSCRIBE
        if granted is not None:
            self._writer.write(b"\x90\x03" + body[:2] + bytes([granted]))

    def publish(self, topic: str, payload: bytes, packet_id: int) -> None:
        """Sends a short message with QoS 1."""
        name = topic.encode()
        body = struct.pack("!H", len(name)) + name + struct.pack("!H", packet_id) + payload
        assert len(body) < 128
        self._writer.write(bytes([0x32, len(body)]) + body)

    async def packet(self, within: float = _WITHIN_S) -> tuple[Kind, bytes]:
        """The next packet's kind and what follows its length; TimeoutError when none comes."""
        async with asyncio.timeout(within):
            while (frame := self._splitter.next_frame()) is None:
                data = await self._reader.read(65_536)
                if not data:
                    raise EOFError
                self._splitter.feed(data)
        return Kind(frame[0] >> 4), frame[2:]

    async def acknowledged(self, within: float = _WITHIN_S) -> int:
        """The packet id of the next PUBACK, which must be the next packet."""
        kind, body = await self.packet(within)
        assert kind is Kind.PUBACK
        (packet_id,) = struct.unpack("!H", body)
        return int(packet_id)

    def acknowledge(self, published: bytes) -> None:
        """Sends the PUBACK of a PUBLISH with QoS 1, of which this is what follows its length."""
        end = 2 + int.from_bytes(published[:2], "big")
        self._writer.write(b"\x40\x02" + published[end : end + 2])

    def drop(self) -> None:
        """Ends the connection as a broker does that is killed."""
        self._writer.transport.abort()


class ScriptedBroker:
    """Listens; `next` is the connection that comes next."""

    def __init__(self, port: int, arrived: asyncio.Queue[Served]) -> None:
        self.port = port
        self._arrived = arrived

    async def next(self, granted: int | None = 1) -> Served:
        """Waits for a connection and lets it in, as `Served.accept` does."""
        async with asyncio.timeout(_WITHIN_S):
            served = await self._arrived.get()
        await served.accept(granted)
        return served


@asynccontextmanager
async def scripted_broker(certificates: Certificates) -> AsyncIterator[ScriptedBroker]:
    """It shows the claim broker's certificate, and asks for one."""
    home = certificates.home
    pair = home.broker(Zone.CLAIM)
    context = ssl.create_default_context(
        ssl.Purpose.CLIENT_AUTH, cafile=str(home.client_anchors(Zone.CLAIM))
    )
    context.load_verify_locations(home.server_anchors)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(pair.certificate, pair.key)
    arrived: asyncio.Queue[Served] = asyncio.Queue()
    writers: list[asyncio.StreamWriter] = []

    def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        arrived.put_nowait(Served(reader, writer))

    server = await asyncio.start_server(on_connection, "127.0.0.1", 0, ssl=context)
    try:
        yield ScriptedBroker(server.sockets[0].getsockname()[1], arrived)
    finally:
        for writer in writers:
            writer.transport.abort()
        server.close()
