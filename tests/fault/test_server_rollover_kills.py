"""Kill -9 of the service at every step of another infrastructure authority's coming, and of its
going back: a device that lives is let in all the while by a broker that lives on, and the next life
of the service completes what the operator asked for.
"""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from broker.protocol.bundle import ClaimBundle
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from device_client import keystore
from device_client.trust import TrustStore
from tests.fault.dying_servers import READING, TELLING
from tests.support.acting import is_admitted
from tests.support.certificates import Client
from tests.support.changing_servers import (
    claims,
    in_use,
    infrastructure,
    lives,
    renews,
    serves_by,
)
from tests.support.rolling import assert_sound
from tests.support.stack import Plan, Stack, prepared_stack
from tests.support.waiting import eventually


@pytest.fixture(params=list(BrokerKind), ids=str)
async def stack(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stack]:
    plan = Plan(request.param, in_process=False, forks=True)
    async with prepared_stack(tmp_path, plan) as prepared:
        await prepared.installation.standard(["A1", "B2", "C3"])
        await prepared.start_service()
        yield prepared
        await prepared.kill_service()


async def killed_all_the_way(
    stack: Stack, place: Path, step: str, version: int, boxed: ClaimBundle
) -> None:
    """An operator's step whose consequences the service begins many times, and ends once.

    `A1` is a member all the time, and let in by a broker that doesn't end with its service.
    """
    await stack.kill_service()
    before = (await infrastructure(stack, "status")).version
    await infrastructure(stack, step, abandon=9)
    # What is told once comes first: who dies while a broker reads may have told it already.
    for death in (*(TELLING if version > before else ()), *READING):
        await stack.process.dies("dying_servers", death)
        if stack.plan.brokers is BrokerKind.MOSQUITTO:
            assert await is_let_in(stack, place / "A1"), death
    await stack.start_service()
    await in_use(stack, version)
    await assert_sound(stack)
    assert await lives(place, "A1", boxed)


def as_it_is(place: Path) -> Client:
    """The device with what it holds now, its own idea of brokers with it."""
    identity = keystore.looked_at(place).current()
    assert identity is not None
    anchors = place / "known-anchors.pem"
    anchors.write_text(TrustStore(place).newest(identity.trust_bundle).anchors)
    return Client(identity.device_id, identity.chain_file, identity.key_file, anchors)


async def is_let_in(stack: Stack, place: Path) -> bool:
    """Whether it and the fleet's broker take each other, with or without a service."""
    return await is_admitted(stack, await asyncio.to_thread(as_it_is, place))


async def served_by(stack: Stack, fleet: int, claim: int) -> None:
    """Until the brokers serve by these authorities."""
    await eventually(partial(serves_by, stack, Zone.FLEET, fleet), within=60)
    await eventually(partial(serves_by, stack, Zone.CLAIM, claim), within=60)


async def test_the_service_dies_while_another_authority_comes(stack: Stack, tmp_path: Path) -> None:
    boxed = stack.bundle()
    assert await claims(stack, tmp_path, "A1", boxed)
    await killed_all_the_way(stack, tmp_path, "start", 2, boxed)
    await renews(stack, tmp_path, "A1", boxed)
    await killed_all_the_way(stack, tmp_path, "fleet", 2, boxed)
    await served_by(stack, 2, 1)
    assert await claims(stack, tmp_path, "B2", boxed)
    await killed_all_the_way(stack, tmp_path, "claim", 2, boxed)
    await served_by(stack, 2, 2)
    await killed_all_the_way(stack, tmp_path, "finish", 3, boxed)
    assert await lives(tmp_path, "B2", boxed)
    assert await claims(stack, tmp_path, "C3", stack.bundle())


async def test_the_service_dies_while_it_goes_back(stack: Stack, tmp_path: Path) -> None:
    boxed = stack.bundle()
    assert await claims(stack, tmp_path, "A1", boxed)
    await infrastructure(stack, "start")
    await in_use(stack, 2)
    await renews(stack, tmp_path, "A1", boxed)
    await infrastructure(stack, "fleet")
    await served_by(stack, 2, 1)
    await killed_all_the_way(stack, tmp_path, "cancel", 2, boxed)
    await served_by(stack, 1, 1)
    await killed_all_the_way(stack, tmp_path, "finish", 3, boxed)
    assert await claims(stack, tmp_path, "B2", boxed)
