"""The embedded broker of one zone: a listening socket, its connections, and the core."""

import asyncio
import errno
import logging
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from broker.adapters.brokers.embedded.connection import Connection, Site
from broker.adapters.brokers.embedded.core import Core
from broker.adapters.brokers.embedded.errors import BrokerError, BrokerErrorCode, Ending
from broker.adapters.brokers.embedded.limits import BrokerLimits
from broker.adapters.brokers.embedded.trust import BrokerTls, load_trust
from broker.protocol.zones import Zone

_log = logging.getLogger(__name__)

_BACKLOG: Final = 1024
_LOOK_AGAIN_S: Final = 0.1
_ACCEPT_PAUSE_S: Final = 1.0
_END_S: Final = 1.5
_CORE_END_S: Final = 1.0


class EmbeddedBroker:
    """An MQTT 3.1.1 broker over mutual TLS whose four guarantees are those of the design.

    Every client has proved a certificate that isn't revoked; it publishes and reads under its own
    names only; `apply_crl` and `disconnect` end live connections. Nothing is durable: the registry
    is the truth, and the service publishes retained messages again after a start.
    """

    def __init__(
        self,
        zone: Zone,
        tls: BrokerTls,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: BrokerLimits = BrokerLimits(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._zone = zone
        self._tls = tls
        self._host = host
        self._wanted_port = port
        self._limits = limits
        self._site: Site | None = None
        self._socket: socket.socket | None = None
        self._accepting: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()

    @property
    def port(self) -> int:
        """The port that is bound, from `start` on."""
        if self._socket is None:
            raise _not_running()
        bound: int = self._socket.getsockname()[1]
        return bound

    @property
    def endings(self) -> Mapping[Ending, int]:
        """How many connections have ended, by the reason."""
        return dict(self._running().roster.endings)

    @property
    def connections(self) -> int:
        """How many connections there are, those included that haven't proved anything yet."""
        return len(self._running().roster)

    async def start(self) -> None:
        """Binds the port and serves.

        Raises:
            BrokerError: a file is missing or faulty, or the port can't be bound.
        """
        if self._site is not None:
            raise BrokerError(
                BrokerErrorCode.ALREADY_STARTED, "The broker is running.", "Call stop() first."
            )
        trust = await asyncio.to_thread(load_trust, self._tls, datetime.now(UTC))
        self._socket = await _listen(self._host, self._wanted_port)
        self._site = Site(self._zone, self._limits, Core(), trust)
        await self._site.core.start()
        self._accepting = asyncio.create_task(_accept_all(self._site, self._socket))

    async def stop(self) -> None:
        """Ends all connections and tasks, within three seconds. Safe to call again."""
        site, listening, accepting = self._site, self._socket, self._accepting
        self._site = self._socket = self._accepting = None
        if accepting is not None:
            accepting.cancel()
            await asyncio.wait({accepting})
        if listening is not None:
            listening.close()
        if site is not None:
            await _end(site)

    async def apply_crl(self) -> None:
        """Puts the CRL file, and the server certificate, into force as they are now.

        On return, no connection of a revoked certificate is left, and none is accepted.

        Raises:
            BrokerError: a file is missing, faulty or expired; what was in force stays so.
        """
        site = self._running()
        async with self._reloading:
            trust = await asyncio.to_thread(load_trust, self._tls, datetime.now(UTC))
            site.trust = trust
        await site.roster.end(
            Ending.LOCKED_OUT, _END_S, lambda peer: trust.is_revoked(peer.issuer, peer.serial)
        )

    async def disconnect(self, name: str) -> int:
        """Ends every live connection of the certificate name `name`; returns how many."""
        roster = self._running().roster
        return await roster.end(Ending.LOCKED_OUT, _END_S, lambda peer: peer.name == name)

    def _running(self) -> Site:
        if self._site is None:
            raise _not_running()
        return self._site


async def _accept_all(site: Site, listening: socket.socket) -> None:
    """Until cancelled: one newcomer that goes wrong, in whatever way, isn't the last."""
    while True:
        try:
            await _accept_one(site, listening)
        except Exception:
            _log.exception("The %s broker couldn't take a connection.", site.zone)
            await asyncio.sleep(_ACCEPT_PAUSE_S)


async def _accept_one(site: Site, listening: socket.socket) -> None:
    sock = await _accept(listening)
    if sock is None:
        return
    try:
        await _make_room(site)
        Connection(site, sock).start()
    except BaseException:
        sock.close()
        raise


async def _end(site: Site) -> None:
    await site.roster.end(Ending.BROKER_STOPPED, _END_S)
    await site.roster.abandon()
    try:
        async with asyncio.timeout(_CORE_END_S):
            await site.core.shutdown()
    except TimeoutError:
        _log.warning("The %s broker's core took too long to stop.", site.zone)


async def _make_room(site: Site) -> None:
    """Waits while as many are connected, or connecting, as may be: one newcomer here, the others in
    the kernel's queue."""
    roster, limits = site.roster, site.limits
    while len(roster) >= limits.max_connections or roster.connecting >= limits.max_connecting:
        if roster.connecting >= limits.max_connecting:
            roster.crowd_out(asyncio.get_running_loop().time() - limits.patience_s)
        await roster.wait_for_room(_LOOK_AGAIN_S)


async def _accept(listening: socket.socket) -> socket.socket | None:
    sock: socket.socket | None = None
    try:
        sock, _ = await asyncio.get_running_loop().sock_accept(listening)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except OSError as error:
        if sock is not None:
            sock.close()
        # Out of file descriptors, or a client that has gone again: neither ends the broker.
        _log.warning("A connection couldn't be accepted: %s", error.strerror)
        await asyncio.sleep(_ACCEPT_PAUSE_S if error.errno != errno.ECONNABORTED else 0)
        return None
    return sock


async def _listen(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    sock: socket.socket | None = None
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        sock = socket.socket(family, kind, protocol)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise _bind_error(host, port, error) from error
    return sock


def _bind_error(host: str, port: int, error: OSError) -> BrokerError:
    if error.errno == errno.EADDRINUSE:
        return BrokerError(
            BrokerErrorCode.PORT_TAKEN,
            f"Port {port} on {host} is taken.",
            "Stop the program that uses it, or set another port.",
        )
    return BrokerError(
        BrokerErrorCode.ADDRESS_UNUSABLE,
        f"{host}:{port} can't be bound: {error.strerror}.",
        "Use an address of this machine, and a port above 1023 or the right to bind it.",
    )


def _not_running() -> BrokerError:
    return BrokerError(
        BrokerErrorCode.NOT_RUNNING, "The broker isn't running.", "Call start() first."
    )
