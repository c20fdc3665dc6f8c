"""Replacing the operational authority of a running installation, and waiting for its phases."""

import json
from collections.abc import Awaitable, Callable

from cryptography import x509

from broker.adapters.ca.findings import Check
from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.ca_rollover import Phase, Rollover
from broker.core.findings import Level
from broker.operating.authorities import RootKey, start_rollover
from broker.operating.examination import examine
from broker.operating.installation import open_installation
from broker.ports.registry import Registry
from broker.services.ca_rollover import CaRollovers, Pace, Standing
from tests.support.acting import run_muster
from tests.support.stack import Stack
from tests.support.waiting import eventually

FAST = Pace(per_minute=6000)


async def start(stack: Stack) -> Rollover:
    """As 'muster ca rollover start' in this process; the rollover as it was begun."""
    installation = open_installation(stack.home.path, None)
    async with installation.registry() as registry:
        standing = await start_rollover(installation, registry, FAST, RootKey())
    assert standing.rollover is not None
    return standing.rollover


async def operate(stack: Stack, act: Callable[[CaRollovers], Awaitable[Standing]]) -> Standing:
    """Another of the operator's acts in this process."""

    async def work(registry: Registry) -> Standing:
        return await act(CaRollovers(registry, SystemClock()))

    async with open_registry(stack.home, stack.installation.settings) as registry:
        return await work(registry)


async def look(stack: Stack) -> Standing:
    """How far it is."""
    return await operate(stack, lambda rollovers: rollovers.standing())


async def reached(stack: Stack, phase: Phase, within: float = 60.0) -> Standing:
    """How it stands once it is in this phase."""

    async def is_there() -> bool:
        rollover = (await look(stack)).rollover
        return rollover is not None and rollover.phase is phase

    await eventually(is_there, within)
    return await look(stack)


async def moved(stack: Stack, within: float = 60.0) -> Standing:
    """How it stands once nobody is left."""

    async def is_there() -> bool:
        standing = await look(stack)
        rollover = standing.rollover
        return rollover is not None and rollover.phase is Phase.MOVING and standing.left == 0

    await eventually(is_there, within)
    return await look(stack)


async def roll(stack: Stack, *arguments: str) -> dict[str, object]:
    """'muster ca rollover …' in a process of its own; what it says."""
    status, out, err = await run_muster(stack, "ca", "rollover", *arguments, "--json")
    assert status == 0, err
    said: dict[str, object] = json.loads(out)
    return said


def issuer_of(stack: Stack, generation: int) -> x509.Name:
    """The name of one of the home's operational authorities."""
    pem = stack.home.operational_of(generation).certificate.read_bytes()
    return x509.load_pem_x509_certificate(pem).subject


async def assert_sound(stack: Stack) -> None:
    """'muster doctor' finds nothing wrong with the authorities, anchors and CRLs."""
    found = await examine(open_installation(stack.home.path, None))
    looked_at = [each for each in found if each.check in set(Check)]
    assert looked_at
    assert [each for each in looked_at if each.level is not Level.OK] == []
