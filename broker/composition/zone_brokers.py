"""The zones' brokers as this installation has them, and how the service connects to them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from broker.adapters.brokers.embedded import BrokerTls, EmbeddedBroker
from broker.adapters.brokers.mosquitto import MosquittoControl, MosquittoEndpoint
from broker.adapters.ca.home import MusterHome
from broker.entry.mqtt.link import BrokerLink, LinkSettings, LinkTls
from broker.ports.brokers import BrokerControl, PublishError
from broker.protocol.messages import Endpoint
from broker.protocol.topics import CLAIM_REQUESTS, DEVICE_REQUESTS
from broker.protocol.zones import Zone, service_name
from broker.settings import BrokerKind, Settings

_REQUESTS: Final = {Zone.CLAIM: CLAIM_REQUESTS, Zone.FLEET: DEVICE_REQUESTS}


@asynccontextmanager
async def zone_broker(
    home: MusterHome, settings: Settings, zone: Zone
) -> AsyncIterator[tuple[BrokerControl, Endpoint]]:
    """The zone's broker, steered, and where devices find it; an embedded one runs as long as the
    context."""
    told = settings.zone(zone)
    if told.broker is BrokerKind.MOSQUITTO:
        yield _mosquitto(home, settings, zone), Endpoint(host=told.host, port=told.port)
        return
    embedded = EmbeddedBroker(zone, broker_tls(home, zone), told.listen, told.port)
    await embedded.start()
    try:
        yield embedded, Endpoint(host=told.host, port=embedded.port)
    finally:
        await embedded.stop()


def link_settings(
    home: MusterHome, settings: Settings, zone: Zone, public: Endpoint
) -> LinkSettings:
    """How the service connects to the zone's broker, which devices find at `public`."""
    told = settings.zone(zone)
    pair = home.service(zone)
    return LinkSettings(
        zone=zone,
        broker=Endpoint(
            host=told.service_host or public.host, port=told.service_port or public.port
        ),
        tls=LinkTls(pair.certificate, pair.key, home.server_anchors),
        name=service_name(zone),
        subscription=_REQUESTS[zone],
        concurrent=settings.limits.concurrent_requests,
    )


class Links:
    """Both zones' connections as one publisher."""

    def __init__(self) -> None:
        self.by_zone: dict[Zone, BrokerLink] = {}

    async def publish(self, zone: Zone, topic: str, payload: bytes) -> None:
        """Publishes on the zone's broker.

        Raises:
            PublishError: the broker hasn't taken it.
        """
        link = self.by_zone.get(zone)
        if link is None:
            raise PublishError(f"no link to the {zone} broker")
        await link.publish(topic, payload)


def _mosquitto(home: MusterHome, settings: Settings, zone: Zone) -> MosquittoControl:
    told = settings.zone(zone)
    if told.pid_file is None or told.admin_socket is None:
        raise ValueError("a Mosquitto zone needs pid_file and admin_socket")
    endpoint = MosquittoEndpoint(
        pid_file=home.path / told.pid_file,
        admin_socket=home.path / told.admin_socket,
        crls=(home.crl_file(zone), home.infrastructure_crl),
        reload_socket=told.reload_socket and home.path / told.reload_socket,
    )
    return MosquittoControl(endpoint)


def broker_tls(home: MusterHome, zone: Zone) -> BrokerTls:
    """What the zone's embedded broker shows, and whom it lets in."""
    pair = home.broker(zone)
    return BrokerTls(
        certificate=pair.certificate,
        key=pair.key,
        client_anchors=home.client_anchors(zone),
        crl=home.crl_file(zone),
        infrastructure_anchor=home.server_anchors,
        infrastructure_crl=home.infrastructure_crl,
    )
