"""Rollouts that are prepared: signed ahead, told in one act, and never what holds no more."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.core.lifecycle import DeviceState
from broker.core.records import EventKind
from broker.core.rollout import Progress, RolloutInput, RolloutState, Timing
from broker.core.rollout_pace import Pace
from broker.protocol.updates import Phase
from broker.services import rollouts
from broker.services.problems import Problem, ProblemCode
from tests.support.desk import Desk
from tests.support.fake_updates import a_target
from tests.support.records import a_fingerprint
from tests.support.rollouts import UpdateDesk

LAMPS = [f"lamp-{number:02d}" for number in range(10)]


@pytest.fixture
async def updates(desk: Desk) -> UpdateDesk:
    """Ten lamps."""
    updates = UpdateDesk(desk)
    await updates.add(*LAMPS)
    return updates


async def steer(updates: UpdateDesk, happens: RolloutInput, name: str = "r1") -> None:
    await rollouts.steer(updates.desk.registry, updates.desk.clock, name, happens, None)


async def prepared(updates: UpdateDesk, name: str = "r1") -> int:
    return (await updates.view(name)).prepared


async def test_nobody_hears_of_a_rollout_that_is_held_and_all_of_its_release(
    updates: UpdateDesk,
) -> None:
    await updates.push(hold=True)
    for _ in range(3):
        assert await updates.director.advance() == 0
    view = await updates.view()
    assert (view.rollout.state, view.at(Progress.QUEUED)) == (RolloutState.HELD, 10)
    assert view.prepared == 10
    assert [await updates.told(lamp) for lamp in LAMPS] == [None] * 10
    await steer(updates, RolloutInput.RELEASE)
    assert await updates.director.advance() == 10
    assert await prepared(updates) == 0
    told = await updates.told("lamp-03")
    assert told is not None
    assert (told.device_id, told.sequence) == ("lamp-03", 1)
    kinds = [event.kind for event in await updates.desk.events()]
    assert kinds.count(EventKind.ROLLOUT_RELEASED) == 1
    assert await updates.everybody_says(Phase.INSTALLED) == 10
    await updates.director.advance()
    assert (await updates.view()).rollout.state is RolloutState.DONE


async def test_the_release_may_have_a_time(updates: UpdateDesk) -> None:
    at = updates.desk.clock.now() + timedelta(hours=2)
    await updates.push(timing=Timing(release_at=at))
    assert await updates.director.advance() == 0
    updates.desk.clock.at += timedelta(hours=1, minutes=59)
    assert await updates.director.advance() == 0
    updates.desk.clock.at += timedelta(minutes=1)
    assert await updates.director.advance() == 10


async def test_only_what_is_held_can_be_released(updates: UpdateDesk) -> None:
    await updates.push(hold=True)
    with pytest.raises(Problem) as refused:
        await steer(updates, RolloutInput.PAUSE)
    assert refused.value.code is ProblemCode.ROLLOUT_STATE
    await steer(updates, RolloutInput.CANCEL)
    with pytest.raises(Problem):
        await steer(updates, RolloutInput.RELEASE)


async def test_of_a_rollout_that_is_cancelled_nothing_stays_prepared(updates: UpdateDesk) -> None:
    await updates.push(hold=True)
    await updates.director.advance()
    await steer(updates, RolloutInput.CANCEL)
    for _ in range(3):
        assert await updates.director.advance() == 0
    view = await updates.view()
    assert (view.prepared, view.rollout.moving) == (0, False)
    assert view.at(Progress.CANCELLED) == 10


async def test_a_wave_is_prepared_while_the_one_before_reports(updates: UpdateDesk) -> None:
    await updates.push(pace=Pace(percent=(20.0, 50.0, 100.0)))
    assert await updates.director.advance() == 2
    assert await updates.director.advance() == 0
    assert await prepared(updates) == 3
    assert await updates.everybody_says(Phase.INSTALLED) == 2
    assert await updates.director.advance() == 3
    assert await updates.everybody_says(Phase.INSTALLED) == 3
    assert await updates.director.advance() == 5


async def test_a_rate_is_kept_by_what_is_prepared(updates: UpdateDesk) -> None:
    await updates.push(hold=True, pace=Pace(per_minute=6))
    await updates.director.advance()
    assert await prepared(updates) == 10
    await steer(updates, RolloutInput.RELEASE)
    for _ in range(3):
        assert await updates.director.advance() == 1
        updates.desk.clock.at += timedelta(seconds=10)


async def test_what_has_changed_meanwhile_is_decided_anew(updates: UpdateDesk) -> None:
    await updates.add("meter-1", parameters={"model": "meter"})
    await updates.push(hold=True)
    await updates.director.advance()
    assert await prepared(updates) == 10
    gone = await updates.desk.device("lamp-00")
    await updates.desk.write(("save_device", replace(gone, state=DeviceState.REVOKED)))
    changed = await updates.desk.device("lamp-01")
    await updates.desk.write(("save_device", replace(changed, parameters={"model": "meter"})))
    await steer(updates, RolloutInput.RELEASE)
    assert await updates.director.advance() == 8
    assert (await updates.part("lamp-00")).code == "device_gone"
    assert (await updates.part("lamp-01")).code == "no_image_fits"
    assert (await updates.part("meter-1")).code == "no_image_fits"


async def test_a_release_takes_over_what_was_started_since(updates: UpdateDesk) -> None:
    updates.repository.published.append(a_target("lamp/3.0.bin"))
    await updates.push(hold=True)
    await updates.director.advance()
    await updates.push("lamp/3.0.bin", name="r2")
    assert await updates.director.advance() == 10
    await steer(updates, RolloutInput.RELEASE)
    assert await updates.director.advance() == 10
    told = await updates.told("lamp-00")
    assert told is not None
    assert (told.rollout, told.sequence) == ("r1", 2)
    assert (await updates.part("lamp-00", "r2")).code == "superseded"


@pytest.mark.parametrize("how", ["another director", "too long ago"])
async def test_what_can_not_be_used_any_more_is_signed_anew(updates: UpdateDesk, how: str) -> None:
    await updates.push(hold=True)
    await updates.director.advance()
    if how == "another director":
        updates.repository.keyid = a_fingerprint("the next director")
    else:
        updates.desk.clock.at += timedelta(days=3)
    await steer(updates, RolloutInput.RELEASE)
    assert await updates.director.advance() == 10
    topic = "muster/v1/device/lamp-00/desired/update"
    kept = await updates.desk.read("retained", topic)
    told = await updates.told("lamp-00")
    assert updates.repository.keyid.encode() in kept.payload
    assert told is not None
    assert told.issued_at == updates.desk.clock.now()


async def test_an_image_that_was_taken_back_is_not_told(updates: UpdateDesk) -> None:
    await updates.push(hold=True)
    await updates.director.advance()
    updates.repository.published.clear()
    await steer(updates, RolloutInput.RELEASE)
    assert await updates.director.advance() == 0
    assert (await updates.view()).rollout.state is RolloutState.PAUSED
    assert await updates.told("lamp-00") is None
