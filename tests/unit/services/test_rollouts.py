"""Rollouts, from the operator's word to what every device is told and what is counted of it."""

from dataclasses import replace
from datetime import timedelta

import pytest

from broker.core.lifecycle import DeviceState
from broker.core.records import EventKind
from broker.core.rollout import Progress, RolloutInput, RolloutState, Selection, Timing
from broker.core.rollout_pace import Pace, StopRule
from broker.ports.updates import UpdateError
from broker.protocol.names import DeviceId
from broker.protocol.updates import Phase
from broker.services import rollouts
from broker.services.problems import Problem, ProblemCode
from broker.services.rollout_director import SILENT_AFTER
from tests.support.desk import GROUP, Desk
from tests.support.fake_updates import a_target
from tests.support.records import a_fingerprint
from tests.support.rollouts import NEVER, UpdateDesk, a_report, in_waves

ALL = [f"lamp-{number:02d}" for number in range(20)]


@pytest.fixture
def updates(desk: Desk) -> UpdateDesk:
    return UpdateDesk(desk)


async def test_everybody_is_told_once_and_nobody_counts_before_the_report(
    updates: UpdateDesk,
) -> None:
    await updates.add("lamp-1", "lamp-2")
    await updates.push()
    assert await updates.director.advance() == 2
    assert await updates.director.advance() == 0
    told = await updates.told("lamp-1")
    assert told is not None
    assert (told.sequence, told.rollout, told.device_id) == (1, "r1", "lamp-1")
    target = a_target()
    assert told.targets[0].sources == (f"https://x/t/lamp/{target.sha256}.2.0.bin",)
    assert (await updates.view()).at(Progress.ASSIGNED) == 2
    assert (await updates.view()).rollout.state is RolloutState.RUNNING


async def test_a_rollout_whose_devices_have_all_reported_is_done(updates: UpdateDesk) -> None:
    await updates.add("lamp-1", "lamp-2")
    await updates.push()
    await updates.director.advance()
    await updates.say("lamp-1", Phase.DOWNLOADING)
    await updates.say("lamp-1", Phase.INSTALLED, running={"lamp/2.0.bin": "2.0"})
    assert await updates.told("lamp-1") is None
    await updates.say("lamp-2", Phase.WAITING)
    await updates.director.advance()
    assert (await updates.view()).rollout.state is RolloutState.RUNNING
    await updates.say("lamp-2", Phase.INSTALLED)
    await updates.director.advance()
    assert (await updates.view()).rollout.state is RolloutState.DONE
    kinds = [event.kind for event in await updates.desk.events()]
    assert kinds[-1] is EventKind.ROLLOUT_DONE
    assert kinds.count(EventKind.UPDATE_INSTALLED) == 2


async def test_the_second_wave_waits_for_reports_and_not_for_what_was_sent(
    updates: UpdateDesk,
) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(10, 50, 100))
    for _ in range(3):
        await updates.director.advance()
    first = await updates.at(Progress.ASSIGNED)
    assert len(first) == 2
    await updates.say(first[0], Phase.INSTALLED)
    await updates.director.advance()
    assert len(await updates.at(Progress.ASSIGNED)) == 1
    await updates.say(first[1], Phase.INSTALLED)
    assert await updates.director.advance() == 8
    await updates.everybody_says(Phase.INSTALLED)
    assert await updates.director.advance() == 10


async def test_a_wave_doesn_t_wait_for_devices_that_are_switched_off(updates: UpdateDesk) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(20, 100))
    await updates.director.advance()
    first = await updates.at(Progress.ASSIGNED)
    for device in first[:3]:
        await updates.say(device, Phase.INSTALLED)
    updates.desk.clock.at += SILENT_AFTER / 2
    assert await updates.director.advance() == 0
    updates.desk.clock.at += SILENT_AFTER
    assert await updates.director.advance() == 16
    assert await updates.told(first[3]) is not None  # and it isn't forgotten


@pytest.mark.parametrize("phase", [Phase.DOWNLOADING, Phase.WAITING])
async def test_a_wave_doesn_t_wait_for_who_fell_silent_on_the_way(
    updates: UpdateDesk, phase: Phase
) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(10, 100))
    await updates.director.advance()
    first, second = await updates.at(Progress.ASSIGNED)
    await updates.say(first, Phase.INSTALLED)
    await updates.say(second, phase)
    assert await updates.director.advance() == 0
    updates.desk.clock.at += SILENT_AFTER * 1.1
    assert await updates.director.advance() == 18


async def test_a_moment_to_switch_that_is_still_to_come_is_waited_for(
    updates: UpdateDesk,
) -> None:
    await updates.add(*ALL)
    in_three_days = updates.desk.clock.at + timedelta(days=3)
    await updates.push(pace=in_waves(10, 100), timing=Timing(not_before=in_three_days))
    await updates.director.advance()
    first, second = await updates.at(Progress.ASSIGNED)
    await updates.say(first, Phase.INSTALLED)
    await updates.say(second, Phase.WAITING)
    updates.desk.clock.at += SILENT_AFTER * 2
    assert await updates.director.advance() == 0
    updates.desk.clock.at = in_three_days + SILENT_AFTER * 1.1
    assert await updates.director.advance() == 18


async def test_a_wave_of_which_nobody_has_spoken_opens_no_other(updates: UpdateDesk) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(20, 100))
    await updates.director.advance()
    updates.desk.clock.at += SILENT_AFTER * 2
    assert await updates.director.advance() == 0


async def test_too_many_failures_stop_all_that_has_not_switched(updates: UpdateDesk) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(20, 100), stop=StopRule(above=0.25, after=2))
    await updates.director.advance()
    first = await updates.at(Progress.ASSIGNED)
    await updates.say(first[0], Phase.ROLLED_BACK, code="health_check_failed")
    await updates.director.advance()
    assert (await updates.view()).rollout.state is RolloutState.RUNNING
    await updates.say(first[1], Phase.INSTALLED)
    for _ in range(4):
        await updates.director.advance()
    view = await updates.view()
    assert view.rollout.state is RolloutState.ABORTED
    assert view.rollout.reason is not None
    assert "1 of 2" in view.rollout.reason
    assert not view.rollout.moving
    assert view.at(Progress.CANCELLED) == 16
    assert await updates.at(Progress.CANCELLING) == sorted(first[2:])
    told = await updates.told(first[2])
    assert told is not None
    assert (told.sequence, told.targets) == (2, ())
    assert view.codes["health_check_failed"] == 1


async def test_a_wave_smaller_than_the_rule_s_number_is_judged_all_the_same(
    updates: UpdateDesk,
) -> None:
    await updates.add(*ALL)
    await updates.push(pace=in_waves(5, 100), stop=StopRule(above=0.05, after=10))
    await updates.director.advance()
    await updates.everybody_says(Phase.ROLLED_BACK)
    await updates.director.advance()
    assert (await updates.view()).rollout.state is RolloutState.ABORTED


async def test_called_back_too_late_it_counts_as_what_it_became(updates: UpdateDesk) -> None:
    await updates.add("lamp-1", "lamp-2")
    await updates.push(stop=NEVER)
    await updates.director.advance()
    before = await updates.told("lamp-1")
    await rollouts.steer(
        updates.desk.registry, updates.desk.clock, "r1", RolloutInput.CANCEL, "wrong image"
    )
    await updates.director.advance()
    assert before is not None
    await updates.say("lamp-2", Phase.CANCELLED)
    assert (await updates.part("lamp-2")).progress is Progress.CANCELLED
    await updates.send("lamp-1", a_report(before, Phase.INSTALLED, 77))
    assert (await updates.part("lamp-1")).progress is Progress.INSTALLED
    assert await updates.told("lamp-1") is None


async def test_a_device_that_joins_later_is_told_and_judged(updates: UpdateDesk) -> None:
    await updates.add(*ALL[:4])
    await updates.push(selection=Selection(group=GROUP), stop=StopRule(above=0.1, after=2))
    await updates.director.advance()
    await updates.everybody_says(Phase.DOWNLOADING)
    late = [await joined(updates, serial) for serial in ("A1", "A2", "A3")]
    await updates.director.advance()
    for device in ALL[:4]:
        await updates.say(device, Phase.INSTALLED)
    for device in late[:2]:
        await updates.say(device, Phase.ROLLED_BACK)
    await updates.director.advance()
    view = await updates.view()
    assert view.rollout.state is RolloutState.ABORTED
    assert "joined later" in str(view.rollout.reason)


async def joined(updates: UpdateDesk, serial: str) -> str:
    """Claims and confirms; its reports are signed by the key that all tests' devices have."""
    device = str((await updates.desk.join(serial)).device_id)
    (certificate,) = await updates.desk.certificates(device)
    await updates.add("model-" + serial)
    (known,) = await updates.desk.certificates("model-" + serial)
    await updates.desk.write(("save_certificate", replace(certificate, pem=known.pem)))
    return device


async def test_who_rolled_back_is_offered_another_image_but_not_the_same(
    updates: UpdateDesk,
) -> None:
    updates.repository.published.append(a_target("lamp/2.1.bin", version="2.1"))
    await updates.add("lamp-1")
    await updates.push(stop=NEVER)
    await updates.director.advance()
    await updates.say("lamp-1", Phase.ROLLED_BACK)
    await updates.push(name="same")
    await updates.director.advance()
    part = await updates.part("lamp-1", "same")
    assert (part.progress, part.code) == (Progress.SKIPPED, "rolled_back_before")
    await updates.push(name="said-again", again=True)
    assert await updates.director.advance() == 1
    await updates.say("lamp-1", Phase.ROLLED_BACK)
    await updates.push("lamp/2.1.bin", name="newer")
    assert await updates.director.advance() == 1


async def test_who_runs_it_already_is_left_alone(updates: UpdateDesk) -> None:
    await updates.add("lamp-1")
    await updates.push()
    await updates.director.advance()
    await updates.say("lamp-1", Phase.INSTALLED, running={"lamp/2.0.bin": "2.0"})
    await updates.push(name="once-more")
    assert await updates.director.advance() == 0
    assert (await updates.part("lamp-1", "once-more")).code == "runs_already"
    await updates.push(name="said-so", again=True)
    assert await updates.director.advance() == 1


async def test_retry_offers_the_same_again_because_the_operator_says_so(
    updates: UpdateDesk,
) -> None:
    await updates.add("lamp-1", "lamp-2")
    await updates.push(stop=StopRule(above=0.1, after=1))
    await updates.director.advance()
    await updates.say("lamp-1", Phase.ROLLED_BACK)
    for _ in range(3):
        await updates.director.advance()
    registry, clock = updates.desk.registry, updates.desk.clock
    assert await rollouts.retriable(registry, "r1") == 2
    assert await rollouts.retriable(registry, "r1") == 2
    assert await rollouts.retry(registry, clock, "r1") == 2
    assert await updates.director.advance() == 2
    told = await updates.told("lamp-1")
    assert told is not None
    assert told.sequence == 2
    assert told.targets
    await updates.everybody_says(Phase.INSTALLED)
    await updates.director.advance()
    view = await updates.view()
    assert (view.rollout.state, view.at(Progress.INSTALLED)) == (RolloutState.DONE, 2)


async def test_a_newer_rollout_takes_devices_over_and_an_older_one_never_takes_them_back(
    updates: UpdateDesk,
) -> None:
    updates.repository.published.append(a_target("lamp/2.1.bin", version="2.1"))
    await updates.add("lamp-1", "lamp-2")
    await updates.push(pace=Pace(per_minute=1))
    assert await updates.director.advance() == 1
    (first,) = await updates.at(Progress.ASSIGNED)
    await updates.push("lamp/2.1.bin", name="r2")
    assert await updates.director.advance() == 2
    assert (await updates.part(first)).code == "superseded"
    updates.desk.clock.at += timedelta(minutes=2)
    await updates.director.advance()
    (second,) = await updates.at(Progress.SKIPPED)
    assert second != first
    assert (await updates.part(second)).code == "superseded"
    for device in (first, second):
        told = await updates.told(device)
        assert told is not None
        assert told.rollout == "r2"


async def test_a_pause_holds_the_rest_back_and_the_rate_makes_nothing_up(
    updates: UpdateDesk,
) -> None:
    await updates.add(*ALL)
    await updates.push(pace=Pace(per_minute=6))
    registry, clock = updates.desk.registry, updates.desk.clock
    assert await updates.director.advance() == 1
    clock.at += timedelta(seconds=10)
    assert await updates.director.advance() == 1
    await rollouts.steer(registry, clock, "r1", RolloutInput.PAUSE, None)
    clock.at += timedelta(minutes=5)
    assert await updates.director.advance() == 0
    await rollouts.steer(registry, clock, "r1", RolloutInput.RESUME, None)
    assert await updates.director.advance() == 1


async def test_what_still_holds_is_renewed_before_it_expires(updates: UpdateDesk) -> None:
    await updates.add("lamp-1", "lamp-2")
    window = Timing(window="22:00-04:00")
    await updates.push(timing=window)
    await updates.director.advance()
    first = await updates.told("lamp-1")
    await updates.say("lamp-2", Phase.INSTALLED)
    updates.desk.clock.at += timedelta(days=8)
    assert await updates.director.advance() == 1
    renewed = await updates.told("lamp-1")
    assert first is not None
    assert renewed is not None
    assert renewed.expires > first.expires
    same = replace(renewed, issued_at=first.issued_at, expires=first.expires)
    assert same == first
    assert await updates.director.advance() == 0
    assert await updates.told("lamp-2") is None


async def test_what_a_replaced_director_signed_is_signed_anew(updates: UpdateDesk) -> None:
    """Devices heed its key no more, and would wait for half an assignment's life."""
    await updates.add("lamp-1", "lamp-2", "lamp-3")
    await updates.push(timing=Timing(window="22:00-04:00"))
    assert await updates.director.advance() == 3
    await updates.say("lamp-3", Phase.INSTALLED)
    first = await updates.told("lamp-1")
    updates.repository.keyid = a_fingerprint("the next director")
    updates.desk.clock.at += timedelta(hours=1)
    assert await updates.director.advance() == 2
    again = await updates.told("lamp-1")
    assert first is not None
    assert again is not None
    assert replace(again, issued_at=first.issued_at, expires=first.expires) == first
    assert await updates.director.advance() == 0
    assert await updates.told("lamp-3") is None


async def test_each_device_gets_the_image_of_its_model(updates: UpdateDesk) -> None:
    updates.repository.published.append(a_target("meter/1.bin", model="meter"))
    await updates.add("lamp-1", parameters={"model": "lamp"})
    await updates.add("meter-1", parameters={"model": "meter"})
    await updates.add("other-1", parameters={"model": "other"})
    await updates.add("nobody-knows", parameters={})
    await updates.push("lamp/2.0.bin", "meter/1.bin")
    await updates.director.advance()
    lamp, meter = await updates.told("lamp-1"), await updates.told("meter-1")
    assert lamp is not None
    assert meter is not None
    assert (lamp.targets[0].path, meter.targets[0].path) == ("lamp/2.0.bin", "meter/1.bin")
    assert (await updates.part("other-1")).code == "no_image_fits"
    assert (await updates.part("nobody-knows")).code == "device_model_unknown"


async def test_a_device_that_leaves_the_fleet_holds_nothing_up(updates: UpdateDesk) -> None:
    await updates.add("lamp-1", "lamp-2")
    await updates.push()
    await updates.director.advance()
    device = await updates.desk.device("lamp-1")
    await updates.desk.write(("save_device", replace(device, state=DeviceState.RETIRED)))
    await updates.say("lamp-2", Phase.INSTALLED)
    updates.desk.clock.at += timedelta(minutes=2)
    await updates.director.advance()
    await updates.director.advance()
    assert (await updates.part("lamp-1")).code == "device_gone"
    assert await updates.told("lamp-1") is None
    assert (await updates.view()).rollout.state is RolloutState.DONE


async def test_an_image_that_was_taken_back_pauses_the_rollout(updates: UpdateDesk) -> None:
    await updates.add("lamp-1")
    await updates.push()
    updates.repository.published.clear()
    assert await updates.director.advance() == 0
    view = await updates.view()
    assert view.rollout.state is RolloutState.PAUSED
    assert "isn't published" in str(view.rollout.reason)


async def test_a_preview_changes_nothing(updates: UpdateDesk) -> None:
    await updates.add("lamp-1")
    await updates.add("meter-1", parameters={"model": "meter"})
    push = rollouts.Push("r1", ("lamp/2.0.bin",), Selection(everyone=True))
    planned = rollouts.planned(push, updates.repository.targets(), updates.desk.clock.now())
    before = await updates.desk.everything()
    found = await rollouts.preview(updates.desk.registry, planned)
    assert found == {"told": 1, "no_image_fits": 1}
    assert await updates.desk.everything() == before


async def test_what_can_t_be_started_says_why(updates: UpdateDesk) -> None:
    await updates.add("lamp-1")
    with pytest.raises(UpdateError, match="isn't published"):
        await updates.push("lamp/9.bin")
    updates.repository.published.append(a_target("lamp/2.1.bin"))
    with pytest.raises(Problem, match="same component"):
        await updates.push("lamp/2.0.bin", "lamp/2.1.bin")
    with pytest.raises(Problem) as refused:
        await updates.push(selection=Selection(devices=(DeviceId("nobody"),)))
    assert refused.value.code is ProblemCode.DEVICE_UNKNOWN
    await updates.push()
    updates.desk.clock.at += timedelta(seconds=1)
    with pytest.raises(Problem) as refused:
        await updates.push()
    assert refused.value.code is ProblemCode.ROLLOUT_EXISTS


async def test_what_has_ended_can_t_be_paused(updates: UpdateDesk) -> None:
    await updates.add("lamp-1")
    await updates.push()
    registry, clock = updates.desk.registry, updates.desk.clock
    await rollouts.steer(registry, clock, "r1", RolloutInput.CANCEL, None)
    await rollouts.steer(registry, clock, "r1", RolloutInput.CANCEL, None)
    with pytest.raises(Problem) as refused:
        await rollouts.steer(registry, clock, "r1", RolloutInput.PAUSE, None)
    assert refused.value.code is ProblemCode.ROLLOUT_STATE
