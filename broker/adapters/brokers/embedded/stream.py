"""The client's side of a connection: TLS over a socket, whole packets in, bytes out."""

import asyncio
import socket
import ssl
from typing import Any, Self

from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.framing import FrameSplitter

_CHUNK = 64 * 1024
_WRITE_BUFFER = 64 * 1024
_SHUTDOWN_S = 1.0
_TLS_RECORD = 16 * 1024
_AT_A_STRETCH = 16
"""Packets of one client before others have their turn: without a pause, whatever is here already is
taken without one."""


class ClientStream:
    """A TLS connection that has proved a certificate. Packets are bounded by `limit_packets`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._splitter = FrameSplitter()
        self._taken = 0

    @classmethod
    async def accept(cls, sock: socket.socket, context: ssl.SSLContext, handshake_s: float) -> Self:
        """Does the handshake on a socket just accepted, which it owns from then on.

        Raises:
            Ended: TLS_FAILED.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_CHUNK)
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol,
                sock,
                ssl=context,
                ssl_handshake_timeout=handshake_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except OSError as error:
            raise Ended(Ending.TLS_FAILED, type(error).__name__) from error
        transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        _shrink(transport)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    @property
    def certificate_der(self) -> bytes | None:
        """The client's certificate, as TLS verified it."""
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls.getpeercert(binary_form=True)

    @property
    def address(self) -> tuple[str, int]:
        """The client's address and port."""
        host, port, *_ = self._writer.get_extra_info("peername") or ("", 0)
        return host, port

    def limit_packets(self, size: int) -> None:
        """From now on, a packet of more than `size` bytes is refused."""
        self._splitter.limit = size

    async def next_frame(self) -> bytes:
        """The next whole packet. Others have their turn now and then, even if it's here already.

        Raises:
            Ended: TOO_LARGE, MALFORMED, or CONNECTION_LOST at the end of the stream.
        """
        self._taken += 1
        if self._taken % _AT_A_STRETCH == 0:
            await asyncio.sleep(0)
        while (frame := self._splitter.next_frame()) is None:
            try:
                data = await self._reader.read(_CHUNK)
            except OSError as error:
                raise Ended(Ending.CONNECTION_LOST, type(error).__name__) from error
            if not data:
                raise Ended(Ending.CONNECTION_LOST, "end of stream")
            self._splitter.feed(data)
        return frame

    async def send(self, data: bytes, within_s: float) -> None:
        """Sends `data`; returns once most of it is with the operating system.

        Raises:
            Ended: STALLED when the client doesn't read, CONNECTION_LOST when it has gone.
        """
        try:
            async with asyncio.timeout(within_s):
                self._writer.write(data)
                await self._writer.drain()
        except TimeoutError:
            raise Ended(Ending.STALLED, f"nothing read for {within_s:g} s") from None
        except OSError as error:
            raise Ended(Ending.CONNECTION_LOST, type(error).__name__) from error

    def abort(self) -> None:
        """Ends the connection at once; what wasn't sent is lost."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Ends the connection in order, within a second or so; never raises."""
        try:
            async with asyncio.timeout(2 * _SHUTDOWN_S):
                self._writer.close()
                await self._writer.wait_closed()
        except OSError:
            self.abort()


def _shrink(transport: asyncio.Transport) -> None:
    """Gives back most of what asyncio sets aside to read one TLS connection: 256 KiB of the 350
    that a connection takes. Another event loop, or a later asyncio, is left as it is."""
    tls: Any = getattr(transport, "_ssl_protocol", None)
    if isinstance(getattr(tls, "_ssl_buffer", None), bytearray):
        tls.max_size = _TLS_RECORD
        tls._ssl_buffer = bytearray(_TLS_RECORD)
        tls._ssl_buffer_view = memoryview(tls._ssl_buffer)
