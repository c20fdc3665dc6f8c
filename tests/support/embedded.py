"""An embedded broker with clients of every kind, for its own tests."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiomqtt
from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader

from broker.adapters.brokers.embedded import BrokerLimits, EmbeddedBroker, Zone
from broker.adapters.brokers.embedded.framing import FrameSplitter
from broker.adapters.brokers.embedded.packets import Packet, decode
from tests.support.pki import Pair, Pki

DEADLINE_S = 60.0


@asynccontextmanager
async def running(
    pki: Pki, zone: Zone, limits: BrokerLimits | None = None
) -> AsyncIterator[EmbeddedBroker]:
    """A broker for `zone`, stopped at the end."""
    broker = EmbeddedBroker(zone, pki.tls(zone), limits=limits or BrokerLimits())
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()


def client_context(pki: Pki, pair: Pair | None) -> ssl.SSLContext:
    """TLS as a device does it: servers by the infrastructure anchor only."""
    context = ssl.create_default_context(cafile=str(pki.servers))
    if pair is not None:
        context.load_cert_chain(pair.chain, pair.key_file)
    return context


@asynccontextmanager
async def mqtt(
    pki: Pki, broker: EmbeddedBroker, pair: Pair, client_id: str, **options: Any
) -> AsyncIterator[aiomqtt.Client]:
    """A stock client (paho underneath) that has connected."""
    async with aiomqtt.Client(
        "localhost",
        broker.port,
        identifier=client_id,
        protocol=options.pop("protocol", aiomqtt.ProtocolVersion.V311),
        tls_context=client_context(pki, pair),
        timeout=DEADLINE_S,
        **options,
    ) as client:
        yield client


async def receive(client: aiomqtt.Client) -> aiomqtt.Message:
    """The next message, in time."""
    async with asyncio.timeout(DEADLINE_S):
        return await anext(aiter(client.messages))


def connect_packet(client_id: str, keep_alive: int = 60, **changes: Any) -> bytes:
    """A CONNECT; `changes` set attributes of amqtt's packet."""
    packet = ConnectPacket(
        variable_header=ConnectVariableHeader(0x02, keep_alive),
        payload=ConnectPayload(client_id=client_id),
    )
    for attribute, value in changes.items():
        setattr(packet, attribute, value)
    return packet.to_bytes()


class RawClient:
    """A TLS connection that sends any bytes, for what a stock client would never do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._splitter = FrameSplitter()

    async def send(self, data: bytes) -> None:
        """Sends bytes."""
        self.writer.write(data)
        await self.writer.drain()

    async def packet(self) -> Packet:
        """The next packet of the broker.

        Raises:
            EOFError: the broker has closed the connection.
        """
        async with asyncio.timeout(DEADLINE_S):
            while (frame := self._splitter.next_frame()) is None:
                try:
                    data = await self.reader.read(65536)
                except OSError as error:
                    raise EOFError from error
                if not data:
                    raise EOFError
                self._splitter.feed(data)
        return decode(frame)

    async def connect(self, client_id: str, **options: Any) -> int:
        """Sends a CONNECT; returns the code of its answer."""
        await self.send(connect_packet(client_id, **options))
        answer: Any = await self.packet()
        code: int = answer.return_code
        return code

    async def closed(self) -> None:
        """Waits until the broker closes the connection, whatever it sends before."""
        try:
            while True:
                await self.packet()
        except EOFError:
            return


@asynccontextmanager
async def raw(
    pki: Pki,
    broker: EmbeddedBroker,
    pair: Pair | None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[RawClient]:
    """A raw client whose TLS handshake is done, on its side at least."""
    reader, writer = await asyncio.open_connection(
        "localhost", broker.port, ssl=context or client_context(pki, pair)
    )
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
