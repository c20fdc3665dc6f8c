"""TLS connections that are stopped half-way, to see what a change in between does to them."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

from tests.support.certificates import Client
from tests.support.knocking import Answer, connect_packet

_CHUNK = 65_536
_TIMEOUT_S = 60.0


class HalfOpen:
    """A TCP connection whose TLS handshake goes on when it is told to."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, client: Client
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = client.context().wrap_bio(
            self._incoming, self._outgoing, server_hostname="localhost"
        )
        self._shaken = False

    @classmethod
    @asynccontextmanager
    async def connect(cls, port: int, client: Client) -> AsyncIterator[Self]:
        """Connected by TCP; nothing has been sent."""
        reader, writer = await asyncio.open_connection("localhost", port)
        try:
            yield cls(reader, writer, client)
        finally:
            writer.close()

    async def greet(self) -> None:
        """Sends ClientHello and takes the broker's flight; the client's certificate isn't sent."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not self._shaken:
                try:
                    self._tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush()
                    await self._fill()
                else:
                    self._shaken = True

    async def finish(self, client_id: str) -> Answer:
        """Ends the handshake, sends CONNECT, and says what came of it."""
        try:
            await self.greet()
            self._tls.write(connect_packet(client_id))
            await self._flush()
            async with asyncio.timeout(_TIMEOUT_S):
                answer = await self._read()
        except (ssl.SSLError, ConnectionError, EOFError):
            return Answer.REFUSED
        return Answer.ADMITTED if answer == b"\x20\x02\x00\x00" else Answer.REFUSED

    async def _read(self) -> bytes:
        while True:
            try:
                return self._tls.read(4)
            except ssl.SSLWantReadError:
                await self._fill()

    async def _fill(self) -> None:
        data = await self._reader.read(_CHUNK)
        if not data:
            raise EOFError
        self._incoming.write(data)

    async def _flush(self) -> None:
        self._writer.write(self._outgoing.read())
        await self._writer.drain()


@contextmanager
def blocking_tls(
    port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> Iterator[ssl.SSLSocket]:
    """A TLS connection that blocks, resuming `session` when there is one."""
    with (
        socket.create_connection(("localhost", port), _TIMEOUT_S) as connection,
        context.wrap_socket(connection, server_hostname="localhost", session=session) as tls,
    ):
        yield tls
