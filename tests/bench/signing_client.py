"""Just enough HTTPS to have requests signed: one connection that is kept, one request at a time."""

import asyncio
import ssl
from pathlib import Path
from typing import Final

_PATH: Final = "/1.0/sign"
_WITHIN_S: Final = 60.0


class SigningClient:
    """One client; the server is authenticated by its root."""

    def __init__(self, port: int, root: Path) -> None:
        self._port = port
        self._context = ssl.create_default_context(cafile=str(root))
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def connect(self) -> None:
        """Opens the connection."""
        self._reader, self._writer = await asyncio.open_connection(
            "127.0.0.1", self._port, ssl=self._context, server_hostname="localhost"
        )

    async def sign(self, body: bytes) -> bytes:
        """The answer, which holds the certificate.

        Raises:
            AssertionError: it isn't one.
        """
        assert self._reader is not None
        assert self._writer is not None
        head = (
            f"POST {_PATH} HTTP/1.1\r\nHost: localhost:{self._port}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        async with asyncio.timeout(_WITHIN_S):
            self._writer.write(head.encode() + body)
            status, answer = await _response(self._reader)
        assert status == b"201", f"{status.decode()}: {answer[:300].decode()}"
        return answer

    def close(self) -> None:
        """Ends the connection."""
        if self._writer is not None:
            self._writer.transport.abort()


async def _response(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Status and body, which comes with its length or in chunks (RFC 9112, 6 and 7.1)."""
    head = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    status = head[0].split()[1]
    fields = dict(line.lower().split(b":", 1) for line in head[1:] if line)
    if b"content-length" in fields:
        return status, await reader.readexactly(int(fields[b"content-length"]))
    body = b""
    while length := int(await reader.readuntil(b"\r\n"), 16):
        body += (await reader.readexactly(length + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return status, body
