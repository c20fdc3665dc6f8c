"""uvicorn inside the service: it starts and ends with it, and takes no signals."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from broker.entry.http.protocol import (
    OF_ONE_ADDRESS,
    REQUESTS_BURST,
    REQUESTS_PER_SECOND,
    BoundedProtocol,
)
from broker.entry.http.turns import Turns

_IDLE_S: Final = 15
_GRACE_S: Final = 2
"""How long answers under way may take to finish at the end; the service as a whole has 4 s."""
_BACKLOG: Final = 128


class HttpListenError(Exception):
    """The address for HTTP can't be used."""

    code = "http_address_unusable"

    def __init__(self, host: str, port: int, error: OSError) -> None:
        is_taken = error.errno == errno.EADDRINUSE
        cause = "is taken" if is_taken else f"can't be bound: {error.strerror or error}"
        super().__init__(f"{host}:{port} for HTTP {cause}")
        self.remedy = "set another http.listen or http.port in muster.toml"


@dataclass(frozen=True)
class Allowed:
    """What clients may ask of the server."""

    of_one_address: int = OF_ONE_ADDRESS
    """Connections of one client at once."""
    per_second: float = REQUESTS_PER_SECOND
    """Requests of all clients together; more wait for their turn."""


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: they are the service's."""
        yield


@asynccontextmanager
async def serving(
    app: ASGIApp, host: str, port: int, allowed: Allowed = Allowed()
) -> AsyncIterator[int]:
    """Serves `app` while the block runs, at the port that is given to it; 0 lets the system choose.

    Connections that are open at the end have 2 s to finish.

    Raises:
        HttpListenError: the address can't be bound.
        ExceptionGroup: what ended the server, or the block.
    """
    listener = await asyncio.to_thread(_listener, host, port)
    server = _Server(_config(app, allowed))
    with listener:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(server.serve(sockets=[listener]))
            try:
                yield listener.getsockname()[1]
            finally:
                server.should_exit = True
        for connection in list(server.server_state.connections):
            with contextlib.suppress(AttributeError):
                connection.transport.abort()


def _config(app: ASGIApp, allowed: Allowed) -> uvicorn.Config:
    class Protocol(BoundedProtocol):
        turns = Turns(allowed.per_second, REQUESTS_BURST)
        of_one_address = allowed.of_one_address

    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=_IDLE_S,
        timeout_graceful_shutdown=_GRACE_S,
        backlog=_BACKLOG,
    )


def _listener(host: str, port: int) -> socket.socket:
    """Bound here, because uvicorn ends the process when it can't."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, *_, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        raise HttpListenError(host, port, error) from error
