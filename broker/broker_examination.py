"""What `muster doctor` finds where brokers listen: whether each zone's is the right one."""

import asyncio

from broker.adapters.brokers.probe import (
    ProbeError,
    ProbeFiles,
    UnreachableError,
    probe_broker,
    probe_server,
)
from broker.adapters.ca.infrastructure import broker_name
from broker.installation import Installation
from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
from broker.services.doctor import Finding, Level
from broker.settings import BrokerKind


async def examine_brokers(installation: Installation) -> list[Finding]:
    """Where the service connects, and where devices do."""
    found = await asyncio.gather(
        *(_for_service(installation, zone) for zone in Zone),
        *(_for_devices(installation, zone) for zone in Zone),
    )
    return [finding for finding in found if finding is not None]


async def _for_service(installation: Installation, zone: Zone) -> Finding:
    host, port = installation.settings.zone(zone).for_service
    subject = f"{zone} broker"
    if port == 0:
        message = "Its port is chosen when it starts, so it can't be tried."
        remedy = f"Set {zone}.port in {installation.home.settings}."
        return Finding(Level.WARNING, "broker", subject, message, remedy)
    pair = installation.home.service(zone)
    files = ProbeFiles(installation.home.server_anchors, pair.certificate, pair.key)
    try:
        agreed = await probe_broker(Endpoint(host=host, port=port), broker_name(zone), files)
    except ProbeError as error:
        return Finding(Level.ERROR, "broker", subject, f"{error}.", error.remedy)
    message = f"{host}:{port} and the service accept each other ({agreed})."
    return Finding(Level.OK, "broker", subject, message)


async def _for_devices(installation: Installation, zone: Zone) -> Finding | None:
    """None where it's the same listener, or in another container, whose address is for outside."""
    settings = installation.settings.zone(zone)
    if settings.broker is not BrokerKind.MOSQUITTO or settings.reload_socket is not None:
        return None
    check, subject = "broker_for_devices", f"{zone} broker"
    where = Endpoint(host=settings.host, port=settings.port)
    try:
        await probe_server(where, broker_name(zone), installation.home.server_anchors)
    except UnreachableError as error:
        remedy = "If devices reach it, all is well; else see name, port and firewall."
        return Finding(Level.WARNING, check, subject, f"From here {error}.", remedy)
    except ProbeError as error:
        return Finding(Level.ERROR, check, subject, f"{error}.", error.remedy)
    message = f"Devices meet it at {where.host}:{where.port}."
    return Finding(Level.OK, check, subject, message)
