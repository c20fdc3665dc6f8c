"""Every broker that Muster steers, as one kind of thing to test."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from broker.adapters.brokers.crl_file import swap
from broker.adapters.brokers.embedded import BrokerTls, EmbeddedBroker
from broker.composition.zone_brokers import broker_tls
from broker.protocol.zones import Zone
from tests.support.certificates import Certificates, Client
from tests.support.mosquitto import RunningMosquitto, run_mosquitto
from tests.support.peers import Peer, peer

KINDS: Final = ("mosquitto", "supervised-mosquitto", "embedded")


class BrokerUnderTest(Protocol):
    """A broker that listens, as the contract sees it."""

    @property
    def port(self) -> int:
        """On which it listens for devices; the same after a restart."""

    @property
    def service_port(self) -> int:
        """On which it listens for the service."""

    async def apply_crl(self) -> None:
        """What `broker.ports.brokers.BrokerControl` says."""

    async def disconnect(self, name: str) -> int:
        """What `broker.ports.brokers.BrokerControl` says."""

    async def restart(self) -> None:
        """Kills it without a warning, and starts it on the same port."""


@dataclass(frozen=True)
class Site:
    """One zone's broker, with everything that has authority over who may connect."""

    kind: str
    zone: Zone
    broker: BrokerUnderTest
    certificates: Certificates

    def service(self) -> AbstractAsyncContextManager[Peer]:
        """The service, connected; like the real one it has a client id that nobody can guess."""
        client = self.certificates.service(self.zone)
        return peer(self.broker.service_port, client, f"{client.name}-{secrets.token_hex(8)}")

    async def put_in_force(self, revoked: Sequence[Client]) -> None:
        """Revokes, and has the broker enforce it; live connections stay."""
        pem = self.certificates.revoke(self.zone, revoked)
        path = self.certificates.home.crl_file(self.zone)
        await asyncio.to_thread(swap, path, pem, datetime.now(UTC))
        await self.broker.apply_crl()


class _Embedded:
    """The embedded broker; what kills it is its stop, because it has no process of its own."""

    def __init__(self, zone: Zone, tls: BrokerTls) -> None:
        self._zone = zone
        self._tls = tls
        self._running = EmbeddedBroker(zone, tls, "127.0.0.1", 0)

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def service_port(self) -> int:
        return self._running.port

    async def start(self) -> None:
        await self._running.start()

    async def stop(self) -> None:
        await self._running.stop()

    async def apply_crl(self) -> None:
        await self._running.apply_crl()

    async def disconnect(self, name: str) -> int:
        return await self._running.disconnect(name)

    async def restart(self) -> None:
        port = self.port
        await self.stop()
        self._running = EmbeddedBroker(self._zone, self._tls, "127.0.0.1", port)
        await self.start()


class _Mosquitto:
    """Mosquitto and its control as one."""

    def __init__(self, running: RunningMosquitto) -> None:
        self._running = running
        self.apply_crl = running.control.apply_crl
        self.disconnect = running.control.disconnect
        self.restart = running.restart

    @property
    def port(self) -> int:
        return self._running.port

    @property
    def service_port(self) -> int:
        return self._running.service_port


@asynccontextmanager
async def run_site(
    kind: str, zone: Zone, certificates: Certificates, folder: Path
) -> AsyncIterator[Site]:
    """A broker of this kind for the zone; ended at the end."""
    if kind != "embedded":
        supervised = kind == "supervised-mosquitto"
        async with run_mosquitto(zone, certificates.home.path, folder, supervised) as mosquitto:
            yield Site(kind, zone, _Mosquitto(mosquitto), certificates)
        return
    embedded = _Embedded(zone, broker_tls(certificates.home, zone))
    await embedded.start()
    try:
        yield Site(kind, zone, embedded, certificates)
    finally:
        await embedded.stop()
