"""uvicorn's HTTP/1.1 with the bounds that it leaves open.

uvicorn bounds a request's head (16 KiB, set in `server`), what it buffers of a body and of an
answer, and the idle time between two requests. It doesn't bound how many connections wait with a
request half sent (its own limit of concurrency counts them, and then refuses others), how long a
request may take to arrive, or how long an answer may take to be read. Here these are bounded.
"""

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CONNECTIONS: Final = 256
REQUEST_S: Final = 10.0
"""From a request's first byte to its last."""
STALL_S: Final = 120.0
"""How long a client may leave an answer unread; one on a slow line reads now and then."""
_IN_HAND: Final = frozenset({h11.IDLE, h11.SEND_BODY})
"""The states of a client of which more of a request is to come."""


class BoundedProtocol(H11Protocol):
    """One connection."""

    max_connections = MAX_CONNECTIONS
    request_s = REQUEST_S
    stall_s = STALL_S

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._arriving: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuses one too many at once, and gives the first request its time."""
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
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
        self._has_arrived()
        super().connection_lost(exc)
        self._goes_on()

    def _has_arrived(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _goes_on(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
