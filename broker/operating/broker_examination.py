"""What `muster doctor` finds where brokers listen: whether each zone's is the right one."""

import asyncio

from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.adapters.brokers.probe import (
    ProbeError,
    ProbeFiles,
    UnreachableError,
    is_steered_by,
    probe_broker,
    probe_server,
)
from broker.adapters.ca.infrastructure import broker_name
from broker.core.findings import Finding, Level
from broker.operating.installation import Installation
from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
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
    broker = Endpoint(host=host, port=port)
    try:
        agreed = await probe_broker(broker, broker_name(zone), _files(installation, zone))
    except ProbeError as error:
        return Finding(Level.ERROR, "broker", subject, f"{error}.", error.remedy)
    message = f"{host}:{port} and the service accept each other ({agreed})."
    return Finding(Level.OK, "broker", subject, message)


async def check_admin_socket(installation: Installation, zone: Zone) -> None:
    """Whether it's the socket of the Mosquitto that serves this zone.

    Raises:
        BrokerControlError: it's another's, or can't be visited.
    """
    settings = installation.settings.zone(zone)
    if settings.admin_socket is None:
        return
    host, port = settings.for_service
    path = installation.home.path / settings.admin_socket
    try:
        is_its = await is_steered_by(
            Endpoint(host=host, port=port), _files(installation, zone), path
        )
    except ProbeError:
        return  # the other finding about the broker says so
    if not is_its:
        raise BrokerControlError(
            BrokerControlCode.BROKER_MISMATCH,
            f"{path} is another broker's than {host}:{port}",
            f"set {zone}.admin_socket, pid_file and reload_socket to those of this zone's broker",
        )


def _files(installation: Installation, zone: Zone) -> ProbeFiles:
    pair = installation.home.service(zone)
    return ProbeFiles(installation.home.server_anchors, pair.certificate, pair.key)


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
