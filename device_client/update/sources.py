"""Where the repository's files come from: what the broker retains, or a web server."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from broker.protocol.topics import metadata_topic
from device_client.packets import Publication
from device_client.transport import Connection
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.watching import Watch

if TYPE_CHECKING:
    from device_client.fetch.exchange import Exchange

_OK: Final = 200
_MOST_REDIRECTS: Final = 5
_NOT_THERE: Final = frozenset({403, 404, 410})


class MetadataSource(Protocol):
    """Where the repository's files come from; it needs no trust."""

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """The file `name`, of which at most `limit` + 1 bytes are read; none when there is none."""


@dataclass(frozen=True)
class RetainedSource:
    """Files that the service retains. What is retained comes at once: where nothing comes, or
    something else, the file isn't there."""

    connection: Connection
    wait_s: float
    """Of silence; a slow network brings a large file in many parts."""
    longest_s: float = 900.0
    """In all: the largest file at the slowest rate that images may come at."""

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says; the packet limit bounds what comes.

        Raises:
            ConnectionLost: the connection ended.
        """
        async with self.connection.watch(metadata_topic(name)) as watch:
            message = await self._first(watch)
        return message.payload[: limit + 1] or None if message else None

    async def _first(self, watch: Watch) -> Publication | None:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.longest_s):
                while True:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(self.wait_s):
                            return await watch.next()
                    if self.connection.silent_s >= self.wait_s:
                        return None
        return None


@dataclass(frozen=True)
class WebSource:
    """Files below an address, which needs no trust for what they say."""

    url: str
    anchors: str
    """In PEM; who may serve `https` addresses, besides those whom the system trusts."""
    timeout_s: float = 30.0
    """For each step, and twice as long for a whole file."""

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says.

        Raises:
            UpdateRefused: METADATA_MISSING; the server can't be reached, or refuses.
        """
        from device_client.fetch.errors import FetchError

        try:
            async with asyncio.timeout(self.timeout_s * 2):
                return await self._get(name, limit)
        except FetchError as error:
            raise UpdateRefused(UpdateCode.METADATA_MISSING, str(error)) from error
        except TimeoutError as error:
            raise UpdateRefused(
                UpdateCode.METADATA_MISSING, f"{name} takes too long to come."
            ) from error

    async def _get(self, name: str, limit: int) -> bytes | None:
        """By exchanges that can be called off: a server that sends a byte now and then would keep
        one thread for each try, until the device has none left to write to its disk."""
        from device_client.fetch import exchange, http

        least = exchange.Reach.HERE
        url = http.split(f"{self.url.rstrip('/')}/{quote(name)}")
        context = await asyncio.to_thread(exchange.trusting, self.anchors)
        for _ in range(_MOST_REDIRECTS + 1):
            headers = {"Accept-Encoding": "identity", "Connection": "close"}
            async with exchange.exchanged(url, context, self.timeout_s, headers, least) as answer:
                if answer.status not in http.REDIRECTS:
                    return await _read(answer, limit)
                url, least = http.next_hop(url, answer), max(least, answer.reach)
        raise UpdateRefused(
            UpdateCode.METADATA_MISSING, f"{name} is led from one place to the next without end."
        )


async def _read(answer: "Exchange", limit: int) -> bytes | None:
    if answer.status in _NOT_THERE:
        return None
    if answer.status != _OK:
        raise UpdateRefused(UpdateCode.METADATA_MISSING, f"{answer} answers with {answer.status}.")
    data = b""
    while len(data) <= limit and (part := await answer.read(limit + 1 - len(data))):
        data += part
    return data
