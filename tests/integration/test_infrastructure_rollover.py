"""The authority by which devices know brokers is replaced, under devices that live and in boxes."""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from broker.protocol.zones import Zone
from broker.services.problems import Problem, ProblemCode
from broker.settings import BrokerKind
from device_client.errors import ServerNotTrusted
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


@pytest.fixture
async def stack(plan: Plan, tmp_path: Path) -> AsyncIterator[Stack]:
    async with prepared_stack(tmp_path, plan) as prepared:
        await prepared.start_service()
        await prepared.installation.standard(["A1", "B2", "C3", "D4", "E5"])
        yield prepared


async def test_brokers_change_one_after_the_other(stack: Stack, tmp_path: Path) -> None:
    boxed = stack.bundle()
    assert boxed.trust_bundle.root == stack.home.root.certificate.read_text()
    assert await claims(stack, tmp_path, "A1", boxed)

    await infrastructure(stack, "start")
    stands = await in_use(stack, 2)
    assert (stands.left, stands.devices) == (1, ["lamp-A1"])
    with pytest.raises(Problem) as refused:
        await infrastructure(stack, "fleet")
    assert refused.value.code is ProblemCode.DEVICES_LEFT
    await renews(stack, tmp_path, "A1", boxed)

    await infrastructure(stack, "fleet")
    await eventually(partial(serves_by, stack, Zone.FLEET, 2))
    await assert_sound(stack)
    assert await serves_by(stack, Zone.CLAIM, 1)
    assert await lives(tmp_path, "A1", boxed)
    assert await claims(stack, tmp_path, "B2", boxed), "a box meets the claim broker first"

    with pytest.raises(Problem) as refused:
        await infrastructure(stack, "claim")
    assert refused.value.code is ProblemCode.DEVICES_LEFT
    await infrastructure(stack, "claim", abandon=1)
    await eventually(partial(serves_by, stack, Zone.CLAIM, 2))
    with pytest.raises(ServerNotTrusted):
        await stack.claim_device("C3", tmp_path / "C3", bundle=boxed, wait=False)
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
