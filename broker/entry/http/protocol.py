"""uvicorn's HTTP/1.1 with the bounds that it leaves open.

uvicorn bounds a request's head (16 KiB, set in `server`), what it buffers of a body and of an
answer, and the idle time between two requests. It doesn't bound how many connections wait with a
request half sent (its own limit of concurrency counts them, and then refuses others), how long a
request may take to arrive, in how many pieces (each chunk of a body is an event of its own,
whatever its size), how long an answer may take to be read, or how many are asked for in a second.
Here these are bounded.
"""

import asyncio
from ipaddress import IPv6Network
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.core.ocsp import MAX_QUESTION
from broker.entry.http.turns import Turns

MAX_CONNECTIONS: Final = 256
OF_ONE_ADDRESS: Final = 64
"""Connections; behind a reverse proxy all have its address."""
REQUESTS_PER_SECOND: Final = 200.0
"""Some tenth of a processor. The loop that answers is the one that revokes."""
REQUESTS_BURST: Final = 50
REQUEST_S: Final = 10.0
"""From a request's first byte to its last."""
STALL_S: Final = 120.0
"""How long a client may leave an answer unread; one on a slow line reads now and then."""
MAX_BODY: Final = MAX_QUESTION
"""Bytes; only questions for certificates' status have any."""
HEAD: Final = 16_384
"""Bytes of a request's head."""
_IN_HAND: Final = frozenset({h11.IDLE, h11.SEND_BODY})
"""The states of a client of which more of a request is to come."""


class _ShortBodies(h11.Connection):
    """Refuses a request by its head where its body isn't announced, or too long."""

    def next_event(self) -> Any:
        """As `h11.Connection` says."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            _check_body(event)
        return event


def _check_body(request: h11.Request) -> None:
    headers = dict(request.headers)
    # h11 has checked that it's a number, and that there is one only.
    length = int(headers.get(b"content-length", b"0"))
    if b"transfer-encoding" in headers or length > MAX_BODY:
        raise h11.RemoteProtocolError("a body of such a kind is not read", 413)


class BoundedProtocol(H11Protocol):
    """One connection. A server has a subclass of its own, with its `turns`."""

    turns: Turns
    max_connections = MAX_CONNECTIONS
    of_one_address = OF_ONE_ADDRESS
    request_s = REQUEST_S
    stall_s = STALL_S

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.conn = _ShortBodies(h11.SERVER, HEAD)
        self._arriving: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._has_turn = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses one too many at once, and gives the first request its time."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections or self._neighbours() > self.of_one_address:
            transport.abort()
            return
        self._arriving = self.loop.call_later(self.request_s, transport.abort)

    def data_received(self, data: bytes) -> None:
        """More of a request, or the first bytes of the next one."""
        if self._arriving is None:
            self._arriving = self.loop.call_later(self.request_s, self.transport.abort)
        super().data_received(data)
        if self.conn.their_state not in _IN_HAND:
            self._has_arrived()

    def handle_events(self) -> None:
        """Goes on with what has arrived; a new request waits for its turn."""
        is_new = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if is_new and not self._has_turn:
            self._has_turn = self.turns.ask(self, self._begin)
            if not self._has_turn:
                self.flow.pause_reading()
                return
        super().handle_events()
        if self.conn.their_state is not h11.IDLE:
            self._has_turn = False

    def pause_writing(self) -> None:
        """The client reads slower than it's sent to."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(self.stall_s, self.transport.abort)

    def resume_writing(self) -> None:
        """It has read."""
        self._goes_on()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, whoever did it."""
        self.turns.leave(self)
        self._has_arrived()
        super().connection_lost(exc)
        self._goes_on()

    def _neighbours(self) -> int:
        """How many connections have this one's address, itself among them."""
        own = address_of(self.client)
        return sum(
            isinstance(each, BoundedProtocol) and address_of(each.client) == own
            for each in self.connections
        )

    def _begin(self) -> None:
        """It's its turn."""
        if self.transport.is_closing():
            return
        self._has_turn = True
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.handle_events()
        if self.conn.their_state not in _IN_HAND:
            self._has_arrived()

    def _has_arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _goes_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


def address_of(client: tuple[str, int] | None) -> str | None:
    """Who is at the other end. Of IPv6 the half that names a network: a client has all of it."""
    if client is None or ":" not in client[0]:
        return client and client[0]
    return str(IPv6Network((client[0].partition("%")[0], 64), strict=False))
