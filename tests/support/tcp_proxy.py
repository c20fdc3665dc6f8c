"""A TCP proxy that breaks what passes through it, at a byte that a test names."""

import asyncio
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

_CHUNK: Final = 65_536
_LINGER_NOT: Final = struct.pack("ii", 1, 0)


class Direction(StrEnum):
    """Which way the bytes go."""

    UP = "up"
    """From the device to the broker."""
    DOWN = "down"


class Way(StrEnum):
    """How a connection breaks."""

    RESET = "reset"
    """Both sides get a reset at once."""
    CLOSE = "close"
    """Both sides see an orderly end."""
    HALF = "half"
    """Only who reads in this direction sees an end; the other direction stays open."""
    STALL = "stall"
    """Nothing more comes through, and nobody is told."""


@dataclass(frozen=True)
class Fault:
    """After so many bytes in one direction the connection breaks."""

    direction: Direction
    after: int
    way: Way


class TcpProxy:
    """Forwards to a port; the first `times` connections that reach the fault break."""

    def __init__(self) -> None:
        self.port = 0
        self.target = 0
        """Where to forward to; may be set when a client is about to come, and not before."""
        self.broken = 0
        """How many connections were broken."""
        self.passed: Counter[Direction] = Counter()
        """How many bytes came through, of all connections."""
        self.longest: Counter[Direction] = Counter()
        """How many came through on one connection at most; for the test to clear."""
        self._fault: Fault | None = None
        self._times = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def break_next(self, fault: Fault, times: int = 1) -> None:
        """From now on."""
        self.broken = 0
        self._fault, self._times = fault, times

    def on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def end(self) -> None:
        """Ends all connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        writers = (writer, broker_writer)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(Direction.UP, reader, broker_writer, writers))
                both.create_task(self._pump(Direction.DOWN, broker_reader, writer, writers))
        except* (OSError, RuntimeError, _Broken):
            pass
        finally:
            for each in writers:
                each.close()

    async def _pump(
        self,
        direction: Direction,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        writers: tuple[asyncio.StreamWriter, ...],
    ) -> None:
        passed = 0
        while data := await reader.read(_CHUNK):
            room = self._room(direction, passed)
            if room is not None and room <= len(data):
                writer.write(data[:room])
                await writer.drain()
                await self._break(writer, writers)
                return
            passed += len(data)
            self.passed[direction] += len(data)
            self.longest[direction] = max(self.longest[direction], passed)
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    def _room(self, direction: Direction, passed: int) -> int | None:
        """How many bytes may still pass before the fault; none when there is none."""
        fault = self._fault
        if fault is None or self.broken >= self._times or fault.direction is not direction:
            return None
        return fault.after - passed

    async def _break(
        self, writer: asyncio.StreamWriter, writers: tuple[asyncio.StreamWriter, ...]
    ) -> None:
        assert self._fault is not None
        self.broken += 1
        match self._fault.way:
            case Way.RESET:
                for each in writers:
                    connection: socket.socket = each.get_extra_info("socket")
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
                    each.transport.abort()
                raise _Broken
            case Way.CLOSE:
                raise _Broken
            case Way.HALF:
                writer.write_eof()
            case Way.STALL:
                await asyncio.Event().wait()


class _Broken(Exception):
    """The fault was reached."""


@asynccontextmanager
async def tcp_proxy() -> AsyncIterator[TcpProxy]:
    """A proxy on a free port, whose target is still to be set; ended at the end."""
    proxy = TcpProxy()
    server = await asyncio.start_server(proxy.on_connection, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
