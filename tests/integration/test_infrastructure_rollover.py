"""The authority by which devices know brokers is replaced, under devices that live and in boxes."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509

from broker import server_authorities
from broker.authorities import RootKey
from broker.core.infrastructure_rollover import ServerPhase
from broker.installation import open_installation
from broker.protocol.bundle import ClaimBundle
from broker.protocol.zones import Zone
from broker.server_authorities import ServerStanding
from broker.services.problems import Problem, ProblemCode
from broker.settings import BrokerKind
from device_client.errors import DeviceError
from tests.support.acting import run_muster
from tests.support.device_agents import device
from tests.support.rolling import assert_sound
from tests.support.stack import STUBBORN, Plan, Stack, prepared_stack
from tests.support.waiting import eventually


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with prepared_stack(tmp_path, plan) as prepared:
        await prepared.start_service()
        await prepared.installation.standard(["A1", "B2", "C3", "D4", "E5"])
        yield prepared


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

    await eventually(is_in_use, within=20)
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
        await stack.claim_device(serial, place / serial, timing=STUBBORN, bundle=bundle, wait=False)
    except DeviceError:
        return False
    return True


async def lives(place: Path, serial: str, bundle: ClaimBundle) -> bool:
    """Whether a member comes to the fleet's broker with what it holds."""
    with device(place / serial, bundle, serial) as (agent, _):
        try:
            await agent.claim(20, wait=False)
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
            await eventually(partial(_is_renewed, stack, serial), within=30)
        finally:
            living.cancel()
            await asyncio.gather(living, return_exceptions=True)


async def _is_renewed(stack: Stack, serial: str) -> bool:
    found = await stack.certificates_of(serial)
    return len(found) > 1 and found[-1].confirmed_at is not None


async def test_brokers_change_one_after_the_other(stack: Stack, tmp_path: Path) -> None:
    boxed = stack.bundle()
    assert boxed.trust_bundle.root == stack.home.root.certificate.read_text()
    assert await claims(stack, tmp_path, "A1", boxed)

    await infrastructure(stack, "start")
    stands = await in_use(stack, 2)
    assert stands.devices == ["lamp-A1"]
    with pytest.raises(Problem) as refused:
        await infrastructure(stack, "fleet")
    assert refused.value.code is ProblemCode.DEVICES_LEFT
    await renews(stack, tmp_path, "A1", boxed)

    await infrastructure(stack, "fleet")
    await eventually(partial(serves_by, stack, Zone.FLEET, 2), within=20)
    await assert_sound(stack)
    assert await serves_by(stack, Zone.CLAIM, 1)
    assert await lives(tmp_path, "A1", boxed)
    assert await claims(stack, tmp_path, "B2", boxed), "a box meets the claim broker first"

    with pytest.raises(Problem) as refused:
        await infrastructure(stack, "claim")
    assert refused.value.code is ProblemCode.DEVICES_LEFT
    await infrastructure(stack, "claim", abandon=1)
    await eventually(partial(serves_by, stack, Zone.CLAIM, 2), within=20)
    assert not await claims(stack, tmp_path, "C3", boxed)
    assert await claims(stack, tmp_path, "D4", stack.bundle()), "bundles made now know both"

    await infrastructure(stack, "finish")
    await in_use(stack, 3)
    assert await claims(stack, tmp_path, "E5", stack.bundle())
    for serial in ("A1", "B2", "D4"):
        assert await lives(tmp_path, serial, boxed)
    await assert_sound(stack)
    # The service itself lives under the new authority, also after a start.
    await stack.stop_service()
    await stack.start_service()
    assert await lives(tmp_path, "A1", boxed)
    assert (
        stack.bundle().trust_bundle.anchors
        == stack.home.infrastructure_of(2).certificate.read_text()
    )


async def test_every_step_may_be_taken_while_the_service_is_down(
    stack: Stack, tmp_path: Path
) -> None:
    boxed = stack.bundle()
    assert await claims(stack, tmp_path, "A1", boxed)
    for step, version in (("start", 2), ("fleet", 2), ("claim", 2), ("finish", 3)):
        await stack.stop_service()
        await infrastructure(stack, step, abandon=9)
        if stack.plan.brokers is BrokerKind.MOSQUITTO:
            # It goes on with what it has read, and what it reads at a start of its own works, too.
            await stack.brokers[Zone.CLAIM].restart()
        await stack.start_service()
        await in_use(stack, version)
        await assert_sound(stack)
        assert await lives(tmp_path, "A1", boxed)
        if step == "start":
            await renews(stack, tmp_path, "A1", boxed)


async def test_the_fleet_s_broker_goes_back_under_living_devices(
    stack: Stack, tmp_path: Path
) -> None:
    boxed = stack.bundle()
    assert await claims(stack, tmp_path, "A1", boxed)
    await infrastructure(stack, "start")
    await in_use(stack, 2)
    await renews(stack, tmp_path, "A1", boxed)
    await infrastructure(stack, "fleet")
    await eventually(partial(serves_by, stack, Zone.FLEET, 2), within=60)
    assert await claims(stack, tmp_path, "B2", boxed)
    between = stack.bundle()

    assert (await infrastructure(stack, "cancel")).version == 2
    await eventually(partial(serves_by, stack, Zone.FLEET, 1), within=60)
    await assert_sound(stack)
    for serial in ("A1", "B2"):
        assert await lives(tmp_path, serial, boxed)

    await infrastructure(stack, "finish")
    await in_use(stack, 3)
    await assert_sound(stack)
    assert await claims(stack, tmp_path, "C3", between), "flashed when it was to come"
    assert await claims(stack, tmp_path, "D4", stack.bundle())
    for serial in ("A1", "B2"):
        assert await lives(tmp_path, serial, boxed)
