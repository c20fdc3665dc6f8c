"""Replacing the authority by which devices know brokers, in tests: the operator's steps, and what
devices and strangers see of them."""

import asyncio
import ssl
from functools import partial
from pathlib import Path

from cryptography import x509

from broker.core.infrastructure_rollover import ServerPhase
from broker.operating import server_authorities
from broker.operating.authorities import RootKey
from broker.operating.installation import open_installation
from broker.operating.server_authorities import ServerStanding
from broker.protocol.bundle import ClaimBundle
from broker.protocol.zones import Zone
from device_client.errors import DeviceError
from tests.support.acting import run_muster
from tests.support.device_agents import device
from tests.support.stack import CLAIM_S, STUBBORN, Stack
from tests.support.waiting import eventually


async def infrastructure(stack: Stack, step: str, abandon: int = 0) -> ServerStanding:
    """One of the operator's steps, in this process."""
    installation = open_installation(stack.home.path, None)
    async with installation.registry() as registry:
        match step:
            case "start":
                return await server_authorities.start(installation, registry, RootKey())
            case "finish":
                return await server_authorities.finish(installation, registry, RootKey())
            case "cancel":
                return await server_authorities.cancel(installation, registry, RootKey())
            case "status":
                return await server_authorities.standing(installation, registry)
            case _:
                phase = ServerPhase(step)
                return await server_authorities.move_broker(installation, registry, phase, abandon)


async def in_use(stack: Stack, version: int) -> ServerStanding:
    """How it stands once the service gives the bundle of this version."""

    async def is_in_use() -> bool:
        stands = await infrastructure(stack, "status")
        return stands.version == version and stands.in_use_since is not None

    await eventually(is_in_use)
    return await infrastructure(stack, "status")


async def serves_by(stack: Stack, zone: Zone, generation: int) -> bool:
    """Whether the zone's broker shows a certificate of this authority, and completes a handshake
    with somebody who trusts nobody else."""
    anchor = stack.home.infrastructure_of(generation).certificate
    context = ssl.create_default_context(cafile=str(anchor))
    client = stack.claim_client()
    context.load_cert_chain(client.certificate, client.key)
    try:
        _, writer = await asyncio.open_connection("localhost", stack.ports[zone], ssl=context)
    except (ssl.SSLError, OSError):
        return False
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    issuer = x509.load_pem_x509_certificate(anchor.read_bytes()).subject
    return x509.load_der_x509_certificate(der).issuer == issuer


async def claims(stack: Stack, place: Path, serial: str, bundle: ClaimBundle) -> bool:
    """Whether a device out of its box becomes a member with this bundle.

    A step has the service come back under another certificate; what it was asked meanwhile is lost,
    and asked again.
    """
    try:
        await stack.claim_device(serial, place / serial, timing=STUBBORN, bundle=bundle)
    except DeviceError:
        return False
    return True


async def lives(place: Path, serial: str, bundle: ClaimBundle) -> bool:
    """Whether a member comes to the fleet's broker with what it holds."""
    with device(place / serial, bundle, serial) as (agent, _):
        try:
            await agent.claim(CLAIM_S)
        except DeviceError:
            return False
    return True


async def renews(stack: Stack, place: Path, serial: str, bundle: ClaimBundle) -> None:
    """A living device follows an order for all."""
    status, _, err = await run_muster(stack, "rotate", "start", "--all", "--per-minute", "6000")
    assert status == 0, err
    with device(place / serial, bundle, serial) as (agent, _):
        living = asyncio.create_task(agent.run())
        try:
            await eventually(partial(_is_renewed, stack, serial))
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


async def _is_renewed(stack: Stack, serial: str) -> bool:
    found = await stack.certificates_of(serial)
    return len(found) > 1 and found[-1].confirmed_at is not None
