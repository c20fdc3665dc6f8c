"""Asking for admission with bare MQTT 3.1.1 over TLS, to see exactly what is refused and when."""

import asyncio
import ssl
import struct
from enum import StrEnum

from tests.support.certificates import Client

_CONNACK_SIZE = 4


class Answer(StrEnum):
    """What became of a CONNECT."""

    ADMITTED = "admitted"
    REFUSED = "refused"


class Door:
    """A TLS connection on which CONNECT wasn't sent yet.

    With TLS 1.3 a client is done before the broker has looked at its certificate, so that a refusal
    shows at the first read.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def knock(self, client_id: str, within: float = 60.0) -> Answer:
        """Sends CONNECT, and says what came of it. The connection stays when it is admitted."""
        try:
            async with asyncio.timeout(within):
                self._writer.write(connect_packet(client_id))
                await self._writer.drain()
                answer = await self._reader.readexactly(_CONNACK_SIZE)
        except (ssl.SSLError, OSError, asyncio.IncompleteReadError) as error:
            if isinstance(error, TimeoutError):
                raise
            return Answer.REFUSED
        return Answer.ADMITTED if answer == b"\x20\x02\x00\x00" else Answer.REFUSED

    async def ended(self, within: float = 60.0) -> None:
        """Returns when the broker has ended the connection; TimeoutError when it hasn't."""
        try:
            async with asyncio.timeout(within):
                while await self._reader.read(1024):
                    pass
        except (ssl.SSLError, ConnectionError):
            pass

    def close(self) -> None:
        """Leaves without a word."""
        self._writer.transport.abort()


async def approach(port: int, client: Client) -> Door:
    """Ends its side of the TLS handshake. OSError when nobody listens."""
    context = await asyncio.to_thread(client.context)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    return Door(reader, writer)


async def knock(port: int, client: Client, client_id: str | None = None) -> Answer:
    """Whether the broker admits `client`, by default under its own name; leaves at once."""
    try:
        door = await approach(port, client)
    except (ssl.SSLError, ConnectionResetError):
        return Answer.REFUSED
    try:
        return await door.knock(client.name if client_id is None else client_id)
    finally:
        door.close()


def connect_packet(client_id: str) -> bytes:
    """CONNECT with a clean session and a keepalive of 60 s."""
    name = client_id.encode()
    body = struct.pack("!H4sBBHH", 4, b"MQTT", 4, 2, 60, len(name)) + name
    assert len(body) < 0x80, "a remaining length of one byte is all that is needed here"
    return bytes([0x10, len(body)]) + body
