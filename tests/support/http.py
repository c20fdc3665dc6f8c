"""An HTTP client for tests of our own server: one request, everything of the answer."""

import asyncio
import http.client
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from starlette.types import ASGIApp

from broker.entry.http.server import serving


@dataclass(frozen=True)
class Answer:
    """What came back; the names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(
    port: int,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: bytes | None = None,
) -> Answer:
    """One request on a connection of its own. The path goes out as it is."""
    return await asyncio.to_thread(_ask, port, path, headers or {}, method, body)


def _ask(
    port: int, path: str, headers: Mapping[str, str], method: str, body: bytes | None
) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, answer.read())
    finally:
        connection.close()


@asynccontextmanager
async def served(app: ASGIApp) -> AsyncIterator[int]:
    """The application on a port of its own while the block runs."""
    async with serving(app, "127.0.0.1", 0) as port:
        yield port
