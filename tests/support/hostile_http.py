"""An HTTP server that misbehaves as a test wants it to."""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

_AT_ONCE: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Asked:
    """A request; the names of headers are in small letters."""

    path: str
    headers: Mapping[str, str]

    @property
    def start(self) -> int:
        """From which byte on it asks."""
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("range", "bytes=0-"))
        assert found is not None, "the device asks for everything from some byte on"
        return int(found[1])


class Talk:
    """One connection, on which one request has come."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.sent = 0
        """Bytes of the body."""

    async def head(self, status: int, **headers: str | int) -> None:
        """The answer's status and headers; `_` in a name stands for `-`."""
        lines = [f"HTTP/1.1 {status} Whatever"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self._writer.write("\r\n".join([*lines, "", ""]).encode())
        await self._writer.drain()

    async def body(self, data: bytes) -> None:
        """Some of the answer's body."""
        self._writer.write(data)
        await self._writer.drain()
        self.sent += len(data)

    def reset(self) -> None:
        """Breaks the connection off."""
        held = self._writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self._writer.transport.abort()

    async def until_gone(self) -> None:
        """Says nothing until the other side has hung up."""
        while not self._writer.transport.is_closing():
            self._writer.write(b"")
            await asyncio.sleep(0.01)


Behaviour = Callable[[Asked, Talk], Awaitable[None]]


class HostileServer:
    """Takes a behaviour for each request; the last one stays."""

    def __init__(self, scheme: str, behaviours: tuple[Behaviour, ...]) -> None:
        self.port = 0
        self._scheme = scheme
        self.asked: list[Asked] = []
        self.talks: list[Talk] = []
        self.open = 0
        """Connections that are open now."""
        self._behaviours = deque(behaviours)

    @property
    def url(self) -> str:
        """Where the image is."""
        return f"{self._scheme}://localhost:{self.port}/image.bin"

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers one request."""
        self.open += 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await self._talk(reader, writer)
        finally:
            self.open -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in lines[1:] if line)
        asked = Asked(lines[0].split(" ")[1], {name.lower(): value for name, value in pairs})
        talk = Talk(writer)
        self.asked.append(asked)
        self.talks.append(talk)
        many = len(self._behaviours) > 1
        behave = self._behaviours.popleft() if many else self._behaviours[0]
        watching = asyncio.create_task(_watch(reader, writer))
        try:
            await behave(asked, talk)
        finally:
            watching.cancel()


async def _watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Notices that the client has hung up."""
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while await reader.read(1000):
            pass
    writer.transport.abort()


@asynccontextmanager
async def hostile(
    *behaviours: Behaviour, tls: ssl.SSLContext | None = None, address: str = "127.0.0.1"
) -> AsyncIterator[HostileServer]:
    """Such a server while the block runs."""
    hostile_server = HostileServer("http" if tls is None else "https", behaviours)
    server = await asyncio.start_server(hostile_server.talk, address, 0, ssl=tls)
    hostile_server.port = server.sockets[0].getsockname()[1]
    async with server:
        yield hostile_server


def honest(image: bytes, tag: str = '"v1"', cut_after: int | None = None) -> Behaviour:
    """Serves ranges as the standard has it; breaks off after so many bytes of an answer."""

    async def behave(asked: Asked, talk: Talk) -> None:
        length = len(image)
        start = asked.start
        if asked.headers.get("if-range", tag) != tag:
            start = 0
        elif start >= length:
            await talk.head(416, Content_Range=f"bytes */{length}", Content_Length=0)
            return
        rest = image[start:]
        if start:
            span = f"bytes {start}-{length - 1}/{length}"
            await talk.head(206, Content_Length=len(rest), Content_Range=span, ETag=tag)
        else:
            await talk.head(200, Content_Length=length, ETag=tag)
        await talk.body(rest if cut_after is None else rest[:cut_after])

    return behave


def whole_only(image: bytes, cut_after: int | None = None) -> Behaviour:
    """Knows no ranges: sends everything each time."""

    async def behave(_: Asked, talk: Talk) -> None:
        await talk.head(200, Content_Length=len(image))
        await talk.body(image if cut_after is None else image[:cut_after])

    return behave


def answers(status: int, body: bytes = b"", **headers: str | int) -> Behaviour:
    """Always this."""

    async def behave(_: Asked, talk: Talk) -> None:
        await talk.head(status, **{"Content_Length": len(body), **headers})
        await talk.body(body)

    return behave


def silent(_: Asked, talk: Talk) -> Awaitable[None]:
    """Takes the request and says nothing."""
    return talk.until_gone()
