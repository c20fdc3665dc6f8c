"""Where the repository's files come from: what the broker retains, or a web server."""

import asyncio
import ssl
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from broker.protocol.topics import metadata_topic
from device_client.transport import Connection
from device_client.update.codes import UpdateCode, UpdateRefused

_NOT_THERE: Final = frozenset({403, 404, 410})


@dataclass(frozen=True)
class RetainedSource:
    """Files that the service retains; one that doesn't come soon isn't there."""

    connection: Connection
    wait_s: float

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says; the packet limit bounds what comes.

        Raises:
            ConnectionLost: the connection ended.
        """
        async with self.connection.watch(metadata_topic(name)) as watch:
            try:
                async with asyncio.timeout(self.wait_s):
                    message = await watch.next()
            except TimeoutError:
                return None
        return message.payload[: limit + 1] or None


@dataclass(frozen=True)
class WebSource:
    """Files below an address, which needs no trust for what they say."""

    url: str
    anchors: str
    """In PEM; who may serve `https` addresses. Nothing is asked for by any other scheme than that
    and plain `http`."""
    timeout_s: float = 30.0

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says.

        Raises:
            UpdateRefused: METADATA_MISSING; the server can't be reached, or refuses.
        """
        async with asyncio.timeout(self.timeout_s * 2):
            return await asyncio.to_thread(self._get, name, limit)

    def _get(self, name: str, limit: int) -> bytes | None:
        import urllib.error
        import urllib.request

        url = f"{self.url.rstrip('/')}/{quote(name)}"
        if not url.startswith(("https://", "http://")):
            raise UpdateRefused(UpdateCode.METADATA_MISSING, f"{self.url} isn't a web address.")
        context = ssl.create_default_context(cadata=self.anchors)
        try:
            with urllib.request.urlopen(  # noqa: S310 - the scheme was checked
                url, timeout=self.timeout_s, context=context
            ) as answer:
                return bytes(answer.read(limit + 1))
        except urllib.error.HTTPError as error:
            with error:
                if error.code in _NOT_THERE:
                    return None
                raise UpdateRefused(
                    UpdateCode.METADATA_MISSING, f"{url} answers with {error.code}."
                ) from error
        except OSError as error:
            raise UpdateRefused(
                UpdateCode.METADATA_MISSING, f"{url} can't be reached: {error}."
            ) from error
