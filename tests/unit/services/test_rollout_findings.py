"""What doctor says of rollouts that were stopped: until they are followed, retried or closed."""

from typing import Any

import pytest

from broker.core.rollout import RolloutInput, Selection
from broker.protocol.names import DeviceId, GroupName
from broker.services import rollouts
from broker.services.rollout_director import change
from broker.services.rollout_findings import examine_rollouts
from tests.support.desk import GROUP, Desk
from tests.support.fake_updates import a_target
from tests.support.rollouts import EVERYONE, UpdateDesk

LAMP, SECOND, STOVE = "lamp/2.0.bin", "lamp/2.1.bin", "stove/1.0.bin"
IN_GROUP = Selection(group=GroupName(GROUP))


@pytest.fixture
async def updates(desk: Desk) -> UpdateDesk:
    """Two images for lamps and one for stoves, and the rollout r1 of the first, stopped."""
    updates = UpdateDesk(desk)
    updates.repository.published = [
        a_target(LAMP),
        a_target(SECOND, version="2.1"),
        a_target(STOVE, model="stove"),
    ]
    await updates.add("lamp-1", "lamp-2")
    await updates.push(LAMP, selection=IN_GROUP)
    await happens(updates, RolloutInput.ABORT)
    return updates


async def happens(updates: UpdateDesk, what: RolloutInput, name: str = "r1") -> None:
    now = updates.desk.clock.now()
    await updates.desk.registry.write(lambda tx: change(tx, name, what, "too many failed", now))


async def named(updates: UpdateDesk) -> list[str]:
    found = await examine_rollouts(updates.desk.registry, updates.desk.clock)
    assert all(each.remedy for each in found)
    return [each.subject for each in found]


@pytest.mark.parametrize(
    ("path", "selection"),
    [
        (STOVE, EVERYONE),
        (SECOND, Selection(devices=(DeviceId("lamp-1"),))),
    ],
)
async def test_another_model_s_push_or_a_single_device_s_hides_nothing(
    updates: UpdateDesk, path: str, selection: Any
) -> None:
    await updates.push(path, name="r2", selection=selection)
    assert await named(updates) == ["r1"]


@pytest.mark.parametrize("selection", [EVERYONE, IN_GROUP])
async def test_what_was_followed_is_history(updates: UpdateDesk, selection: Selection) -> None:
    await updates.push(SECOND, name="r2", selection=selection)
    assert await named(updates) == []
    await happens(updates, RolloutInput.ABORT, "r2")
    assert await named(updates) == ["r2"]


@pytest.mark.parametrize("what", [RolloutInput.RETRY, RolloutInput.CANCEL])
async def test_the_operator_s_word_ends_it(updates: UpdateDesk, what: RolloutInput) -> None:
    assert await named(updates) == ["r1"]
    await happens(updates, what)
    assert await named(updates) == []


async def test_a_pause_is_told_whatever_follows(updates: UpdateDesk) -> None:
    await updates.push(STOVE, name="r2")
    await rollouts.steer(
        updates.desk.registry, updates.desk.clock, "r2", RolloutInput.PAUSE, "lunch"
    )
    await updates.push(SECOND, STOVE, name="r3")
    assert await named(updates) == ["r2"]
