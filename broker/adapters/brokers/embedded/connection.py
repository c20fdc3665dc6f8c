"""One connection from accept to end: TLS, certificate, CONNECT, takeover, relay."""

import asyncio
import logging
import socket
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import Final
from weakref import WeakValueDictionary

from broker.adapters.brokers.embedded.connect import Admission, vet_connect
from broker.adapters.brokers.embedded.core import Core
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.limits import BrokerLimits
from broker.adapters.brokers.embedded.pace import Pace, Throttle
from broker.adapters.brokers.embedded.peer import Peer, identify
from broker.adapters.brokers.embedded.policy import Identity
from broker.adapters.brokers.embedded.relay import Relay
from broker.adapters.brokers.embedded.roster import Roster
from broker.adapters.brokers.embedded.stream import ClientStream
from broker.adapters.brokers.embedded.trust import Trust
from broker.protocol.zones import Zone

_log = logging.getLogger(__name__)

_ORDINARY: Final = {Ending.CLIENT_LEFT, Ending.CONNECTION_LOST, Ending.BROKER_STOPPED}
_ANONYMOUS: Final = {Ending.TLS_FAILED, Ending.CONNECT_LATE, Ending.CROWDED_OUT}
"""Anybody who reaches the port can cause these, so they don't fill the log."""


@dataclass
class Site:
    """What the connections of one broker share. `trust` is replaced as a whole."""

    zone: Zone
    limits: BrokerLimits
    core: Core
    trust: Trust
    roster: Roster = field(default_factory=Roster)
    services: set[Relay] = field(default_factory=set)
    session_numbers: "count[int]" = field(default_factory=count)
    paces: WeakValueDictionary[str, Pace] = field(default_factory=WeakValueDictionary)
    """Of a certificate's name, for as long as it has a connection."""

    def pace_of(self, name: str) -> Pace:
        """What all connections of this name share."""
        pace = self.paces.get(name)
        if pace is None:
            limits = self.limits
            pace = Pace(limits.packets_per_name_second, limits.packets_per_name_burst)
            self.paces[name] = pace
        return pace

    def services_lag(self) -> bool:
        """Whether a service has so much unread that devices should wait."""
        return any(relay.outbox.is_crowded for relay in self.services)


class Connection:
    """Owns one accepted socket."""

    def __init__(self, site: Site, sock: socket.socket) -> None:
        self._site = site
        self._sock = sock
        self._stream: ClientStream | None = None
        self._relay: Relay | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_running = False
        self._decided: Ended | None = None
        self.peer: Peer | None = None
        self.identity: Identity | None = None
        self.ended = asyncio.Event()

    def start(self) -> None:
        """Serves the connection in a task of its own, which the roster holds until it has ended."""
        self._task = asyncio.create_task(self._run())
        self._site.roster.add(self, self._task, asyncio.get_running_loop().time())

    def end(self, ending: Ending, detail: str = "") -> None:
        """Has the connection end, soon; the first reason counts."""
        if self._decided is not None:
            return
        self._decided = Ended(ending, detail)
        if self._relay is not None:
            self._relay.end(self._decided)
        elif self._is_running and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        """Serves the connection until it ends, and leaves nothing of it behind."""
        self._is_running = True
        ended = Ended(Ending.BROKER_STOPPED)
        try:
            ended = await self._serve()
        except Ended as refusal:
            ended = refusal
        except asyncio.CancelledError:
            if self._decided is None:
                raise
            ended = self._decided
        except Exception as error:
            _log.exception("A connection failed.")
            ended = Ended(Ending.INTERNAL, type(error).__name__)
        finally:
            await self._close(ended)

    async def _serve(self) -> Ended:
        if self._decided is not None:
            self._sock.close()
            raise self._decided
        admission = await self._admit()
        await self._site.roster.take_over(admission.identity, self)
        number = next(self._site.session_numbers)
        session_id = f"{admission.identity.name}/{admission.identity.client_id}/{number}"
        self._relay = Relay(
            self._stream_in_use(),
            self._site.core,
            admission,
            self._site.limits,
            session_id,
            must_wait=self._must_wait,
            throttle=None if admission.identity.is_service else self._throttle(admission.identity),
        )
        if admission.identity.is_service:
            self._site.services.add(self._relay)
        return await self._relay.run()

    async def _admit(self) -> Admission:
        """The handshake, and a CONNECT in time; nobody is known before."""
        limits, site = self._site.limits, self._site
        self._stream = await ClientStream.accept(self._sock, site.trust.context, limits.handshake_s)
        peer = identify(self._stream.certificate_der, site.trust, site.zone, datetime.now(UTC))
        site.roster.enter(self, peer, limits.max_per_name(site.zone, peer.is_service))
        largest = limits.max_packet(site.zone, peer.is_service)
        self._stream.limit_packets(min(largest, limits.max_connect_packet))
        try:
            async with asyncio.timeout(limits.connect_s):
                frame = await self._stream.next_frame()
        except TimeoutError:
            raise Ended(Ending.CONNECT_LATE) from None
        site.roster.has_connected(self)
        self._stream.limit_packets(largest)
        return vet_connect(frame, site.zone, peer.name, peer.is_service)

    def _throttle(self, identity: Identity) -> Throttle:
        limits = self._site.limits
        own = Pace(limits.packets_per_second, limits.packets_burst)
        return Throttle(own, self._site.pace_of(identity.name), limits.max_slowed)

    def _must_wait(self) -> bool:
        """Whether to read a device no further: while it doesn't read itself, or a service lags.

        A service is always read, since it may have to speak before it can go on reading.
        """
        if self._relay is None or self._relay in self._site.services:
            return False
        return self._relay.outbox.is_crowded or self._site.services_lag()

    def _stream_in_use(self) -> ClientStream:
        if self._stream is None:
            raise RuntimeError("there is no stream before the handshake")
        return self._stream

    async def _close(self, ended: Ended) -> None:
        try:
            if self._stream is not None:
                await self._say_farewell(self._stream, ended)
        finally:
            self._log(ended)
            if self._relay is not None:
                self._site.services.discard(self._relay)
            self._site.roster.remove(self, ended.ending)
            self.ended.set()

    async def _say_farewell(self, stream: ClientStream, ended: Ended) -> None:
        try:
            if ended.farewell:
                await stream.send(ended.farewell, within_s=1.0)
                await stream.close()
        except Ended:
            pass
        finally:
            stream.abort()

    def _log(self, ended: Ended) -> None:
        quiet = ended.ending in _ORDINARY or ended.ending in _ANONYMOUS
        name = self.peer.name if self.peer else "unknown"
        level = logging.DEBUG if quiet else logging.INFO
        _log.log(level, "Connection of %s in the %s zone ended: %s", name, self._site.zone, ended)
