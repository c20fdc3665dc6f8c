"""One HTTP request and its answer, on a connection of its own, in threads that can be called off.

http.client is the standard library's and waits; so each of its steps runs in a thread, and ending
the socket from outside makes a thread return at once that waits on it.
"""

import asyncio
import http.client
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from enum import IntEnum
from ipaddress import ip_address
from typing import Final, TypeVar
from urllib.parse import SplitResult

from device_client.fetch.errors import FetchError, ImageUnavailable, SourceUnfit

ResultT = TypeVar("ResultT")

_PORTS: Final = {"http": 80, "https": 443}


class Reach(IntEnum):
    """From how far an address can be reached."""

    HERE = 0
    """This very device, and what it's linked to."""
    NEAR = 1
    """The network that it's in."""
    ANYWHERE = 2


def reach_of(address: str) -> Reach:
    """Of an IP address in text."""
    found = ip_address(address.partition("%")[0])
    found = getattr(found, "ipv4_mapped", None) or found
    if found.is_loopback or found.is_link_local or found.is_unspecified:
        return Reach.HERE
    return Reach.ANYWHERE if found.is_global else Reach.NEAR


class Exchange:
    """Only `exchanged` makes one."""

    def __init__(
        self, url: SplitResult, context: ssl.SSLContext, timeout_s: float, least: "Reach"
    ) -> None:
        self._url = url
        self._least = least
        self.reach = Reach.HERE
        """Of the server, once it's reached."""
        self._context = context
        self._timeout_s = timeout_s
        self._socket: socket.socket | None = None
        self._answer: http.client.HTTPResponse | None = None
        self._is_over = False
        self._working = threading.Lock()
        """Held by the thread that uses the socket: only then may nobody else close it, lest its
        number be given to another socket under that thread's hands."""

    @property
    def status(self) -> int:
        """The answer's status."""
        return self._given.status

    def header(self, name: str) -> str | None:
        """One of the answer's headers."""
        return self._given.headers.get(name)

    async def read(self, most: int) -> bytes:
        """The next bytes of the body, as they come; none at its end.

        Raises:
            ImageUnavailable: the connection broke, or nothing came in time.
        """
        return await self._in_thread(lambda: self._given.read1(most), self._timeout_s)

    async def open(self, headers: Mapping[str, str]) -> None:
        """Connects, asks, and waits for the answer's head.

        Raises:
            ImageUnavailable: the server can't be reached, or doesn't answer in time.
            SourceUnfit: it can't prove who it is, or doesn't speak HTTP.
        """
        await self._in_thread(lambda: self._open(headers), 2 * self._timeout_s)

    def end(self) -> None:
        """Ends the connection, whatever a thread does with it."""
        self._is_over = True
        if self._socket is not None:
            with suppress(OSError):
                # Not by way of TLS, which a thread may be in the middle of.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        if not self._working.locked():
            self._close()

    @property
    def _given(self) -> http.client.HTTPResponse:
        if self._answer is None:
            raise ValueError("there is no answer yet")
        return self._answer

    def _open(self, headers: Mapping[str, str]) -> None:
        host, port = self._url.hostname or "", self._url.port or _PORTS[self._url.scheme]
        self._connect(host, port)
        if self._url.scheme == "https":
            # Without the handshake at first: a socket that nobody holds couldn't be called off.
            wrapped = self._context.wrap_socket(
                self._held, server_hostname=host, do_handshake_on_connect=False
            )
            self._hold(wrapped)
            wrapped.do_handshake()
        connection = http.client.HTTPConnection(host, port)
        connection.sock = self._held
        path = self._url.path or "/"
        asked = f"{path}?{self._url.query}" if self._url.query else path
        connection.request("GET", asked, headers=dict(headers))
        self._answer = connection.getresponse()

    def _connect(self, host: str, port: int) -> None:
        """Tries a host's addresses one after the other, each so that it can be called off."""
        refusal = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM
        ):
            if (reach := reach_of(str(address[0]))) < self._least:
                raise SourceUnfit(f"{self} is no place for a server outside to lead to.")
            held = socket.socket(family, kind, protocol)
            held.settimeout(self._timeout_s)
            self._hold(held)
            try:
                held.connect(address)
            except OSError as error:
                held.close()
                refusal = error
            else:
                held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.reach = reach
                return
        raise refusal

    def _hold(self, held: socket.socket) -> None:
        self._socket = held
        if self._is_over:  # nobody wanted to wait for it any longer
            raise OSError("called off")

    def _close(self) -> None:
        with suppress(OSError, ValueError):
            if self._answer is not None:
                self._answer.close()
        with suppress(OSError):
            if self._socket is not None:
                self._socket.close()

    def _alone(self, step: Callable[[], ResultT]) -> ResultT:
        try:
            with self._working:
                return step()
        finally:
            if self._is_over:
                self._close()

    @property
    def _held(self) -> socket.socket:
        if self._socket is None:
            raise OSError("not connected")
        return self._socket

    async def _in_thread(self, step: Callable[[], ResultT], within_s: float) -> ResultT:
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.to_thread(self._alone, step)
        except TimeoutError as error:
            raise ImageUnavailable(f"{self} takes too long.") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> FetchError:
        match error:
            case ssl.SSLCertVerificationError():
                return SourceUnfit(
                    f"{self} can't prove who it is: {error.verify_message}.",
                    "Check the device's clock and the host name; another source is tried.",
                )
            case ConnectionRefusedError():
                return ImageUnavailable(f"{self} can't be reached: nothing listens there.")
            case ConnectionError() | http.client.IncompleteRead():
                return ImageUnavailable(f"{self} broke the connection off.")
            case OSError():
                return ImageUnavailable(f"{self} can't be reached: {error.strerror or error}.")
            case _:
                return SourceUnfit(f"{self} doesn't speak HTTP as it should: {error!r:.200}.")

    def __str__(self) -> str:
        """For people."""
        return shown(self._url)


def shown(url: SplitResult) -> str:
    """For people, without what a URL may hold that is secret, or steers a terminal."""
    text = f"{url.scheme}://{url.hostname}{url.path}"[:200]
    return "".join(letter if letter.isprintable() else "�" for letter in text)


@asynccontextmanager
async def exchanged(
    url: SplitResult,
    context: ssl.SSLContext,
    timeout_s: float,
    headers: Mapping[str, str],
    least: Reach = Reach.HERE,
) -> AsyncIterator[Exchange]:
    """A server's answer to GET, whose body is read in the block.

    Args:
        timeout_s: for each step.
        least: nearer addresses aren't asked. A server outside mustn't have this device ask what
            only those in its own network can.

    Raises:
        ImageUnavailable, SourceUnfit: as `Exchange.open`.
    """
    exchange = Exchange(url, context, timeout_s, least)
    try:
        await exchange.open(headers)
        yield exchange
    finally:
        exchange.end()


def trusting(anchors: str) -> ssl.SSLContext:
    """Trusts the system's anchors and these; reads files, so call it in a thread.

    Raises:
        ssl.SSLError: the anchors can't be read.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if anchors:
        context.load_verify_locations(cadata=anchors)
    return context
