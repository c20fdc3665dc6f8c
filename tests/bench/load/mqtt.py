"""Just enough MQTT 3.1.1 (OASIS, 2014) for one device: connect, subscribe, ask, hear, leave.

A client of our own, because a stock one costs the load generator more than the brokers and the
service together, and would be what is measured.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

HOST: Final = "127.0.0.1"
NAME: Final = "localhost"
"""What the broker's certificate must carry."""
_KEEPALIVE_S: Final = 60

_CONNACK, _PUBLISH, _PUBACK, _SUBACK = 2, 3, 4, 9
_CONNECT_HEAD: Final = 0x10
_PUBLISH_HEAD: Final = 0x32
_PUBACK_HEAD: Final = 0x40
_SUBSCRIBE_HEAD: Final = 0x82
_DISCONNECT: Final = b"\xe0\x00"
_REFUSED: Final = 0x80


class ProtocolError(Exception):
    """The broker said something else than it should."""


@dataclass(frozen=True)
class Answer:
    """A message that arrived."""

    topic: str
    payload: bytes


class Connection:
    """One connection; one question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def connect(self, client_id: str) -> None:
        """CONNECT with a clean session, and the broker's consent."""
        head = b"\x00\x04MQTT\x04\x02" + struct.pack("!H", _KEEPALIVE_S)
        self._send(_CONNECT_HEAD, head + _text(client_id))
        body = await self._expect(_CONNACK)
        if body[1] != 0:
            raise ProtocolError(f"refused with code {body[1]}")

    async def subscribe(self, filters: Sequence[str]) -> None:
        """SUBSCRIBE with QoS 1."""
        wanted = b"".join(_text(each) + b"\x01" for each in filters)
        self._send(_SUBSCRIBE_HEAD, b"\x00\x01" + wanted)
        body = await self._expect(_SUBACK)
        if _REFUSED in body[2:]:
            raise ProtocolError("a subscription was refused")

    async def ask(self, topic: str, payload: bytes) -> Answer:
        """Publishes with QoS 1; returns the first message that comes, acknowledged.

        The broker's own acknowledgement may come before it or after.
        """
        self._send(_PUBLISH_HEAD, _text(topic) + b"\x00\x02" + payload)
        answer: Answer | None = None
        acknowledged = False
        while answer is None or not acknowledged:
            kind, body = await self._packet()
            if kind == _PUBACK:
                acknowledged = True
            elif kind == _PUBLISH:
                answer = self._acknowledge(body)
            else:
                raise ProtocolError(f"unexpected packet of type {kind}")
        return answer

    async def heard(self) -> Answer:
        """The next message that comes, acknowledged."""
        while True:
            kind, body = await self._packet()
            if kind == _PUBLISH:
                return self._acknowledge(body)

    async def leave(self) -> None:
        """DISCONNECT, so that the broker closes the connection, and waits until it has."""
        self._writer.write(_DISCONNECT)
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._reader.read()

    def _acknowledge(self, body: bytes) -> Answer:
        end = 2 + int.from_bytes(body[:2], "big")
        self._send(_PUBACK_HEAD, body[end : end + 2])
        return Answer(body[2:end].decode(), body[end + 2 :])

    def _send(self, head: int, body: bytes) -> None:
        self._writer.write(bytes([head]) + _length(len(body)) + body)

    async def _expect(self, wanted: int) -> bytes:
        kind, body = await self._packet()
        if kind != wanted:
            raise ProtocolError(f"packet of type {kind} instead of {wanted}")
        return body

    async def _packet(self) -> tuple[int, bytes]:
        head = (await self._reader.readexactly(1))[0]
        length = shift = 0
        while True:
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            if digit < 0x80:
                return head >> 4, await self._reader.readexactly(length)
            shift += 7


@asynccontextmanager
async def connected(
    port: int, context: ssl.SSLContext, client_id: str
) -> AsyncIterator[Connection]:
    """A connection that the broker accepted; TLS authenticates both sides, nothing is resumed."""
    reader, writer = await asyncio.open_connection(HOST, port, ssl=context, server_hostname=NAME)
    try:
        raw: socket.socket = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = Connection(reader, writer)
        await connection.connect(client_id)
        yield connection
        await connection.leave()
    finally:
        writer.transport.abort()


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("!H", len(data)) + data


def _length(length: int) -> bytes:
    digits = bytearray()
    while True:
        length, digit = divmod(length, 128)
        digits.append(digit | (0x80 if length else 0))
        if not length:
            return bytes(digits)
