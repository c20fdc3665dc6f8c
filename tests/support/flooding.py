"""A client that sends the same bytes without end, in threads of its own: whoever shares an event
loop with what it floods goes no faster than that."""

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from broker.adapters.brokers.embedded.framing import FrameSplitter
from tests.support.embedded import connect_packet

_CHUNK = 65_536
_CONNECT_S = 60.0


@dataclass
class Flood:
    """What came of it so far."""

    sent: int = 0
    """Bytes that the operating system took."""
    has_ended: bool = False
    """Whether the other side has closed the connection."""


@asynccontextmanager
async def flooding(
    port: int, context: ssl.SSLContext, client_id: str, blob: bytes
) -> AsyncIterator[Flood]:
    """Connects under `client_id` and sends `blob` over and over; reads, and forgets, whatever
    comes."""
    sock = await asyncio.to_thread(_connected, port, context, client_id)
    flood = Flood()
    threads = [
        threading.Thread(target=_send, args=(sock, blob, flood)),
        threading.Thread(target=_read, args=(sock, flood)),
    ]
    for thread in threads:
        thread.start()
    try:
        yield flood
    finally:
        with suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in threads:
            await asyncio.to_thread(thread.join)
        sock.close()


def _connected(port: int, context: ssl.SSLContext, client_id: str) -> ssl.SSLSocket:
    raw = socket.create_connection(("localhost", port), _CONNECT_S)
    sock = context.wrap_socket(raw, server_hostname="localhost")
    sock.sendall(connect_packet(client_id))
    splitter = FrameSplitter()
    while (answer := splitter.next_frame()) is None:
        splitter.feed(sock.recv(1))
    assert answer == b"\x20\x02\x00\x00", answer
    sock.settimeout(None)
    return sock


def _send(sock: ssl.SSLSocket, blob: bytes, flood: Flood) -> None:
    with suppress(OSError):
        while True:
            for start in range(0, len(blob), _CHUNK):
                flood.sent += sock.send(blob[start : start + _CHUNK])


def _read(sock: ssl.SSLSocket, flood: Flood) -> None:
    with suppress(OSError):
        while sock.recv(_CHUNK):
            pass
    flood.has_ended = True
