"""Which images a rollout has for a device, and whether it is told at all."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.core.fitting import Unfit, ambiguous, choose
from broker.core.lifecycle import DeviceState
from broker.core.rollout import Image, Progress, Rollout, Selection, Timing
from broker.core.rollout_offer import (
    AGAIN,
    GONE,
    ROLLED_BACK_BEFORE,
    RUNS_ALREADY,
    SUPERSEDED,
    Skip,
    Tell,
    offer,
)
from broker.core.rollout_pace import Pace, StopRule
from broker.core.update_records import DeviceUpdate, Part
from broker.protocol.names import DeviceId
from broker.protocol.updates import ImageFacts
from tests.support.records import a_device

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAMP_1 = DeviceId("lamp-1")


def image(path: str = "lamp/2.0.bin", model: str = "lamp", *revs: str, part: str = "main") -> Image:
    facts = ImageFacts(component=part, model=model, hw_revs=revs, version="2.0", security_counter=1)
    return Image(path, "a" * 64, 10, facts)


LAMP = image()
RADIO = image("lamp/radio.bin", part="radio")
METER = image("meter/2.0.bin", "meter")
OLD, NEW = image("lamp/old.bin", "lamp", "a", "b"), image("lamp/new.bin", "lamp", "c")


@pytest.mark.parametrize(
    ("images", "parameters", "chosen"),
    [
        ([LAMP, METER], {"model": "lamp"}, (LAMP,)),
        ([LAMP, RADIO], {"model": "lamp"}, (LAMP, RADIO)),
        ([OLD, NEW], {"model": "lamp", "hw_rev": "c"}, (NEW,)),
        ([OLD, METER], {"model": "lamp"}, (OLD,)),
        ([LAMP], {}, (LAMP,)),
    ],
)
def test_a_device_gets_one_image_for_each_component(
    images: list[Image], parameters: dict[str, str], chosen: tuple[Image, ...]
) -> None:
    assert choose(images, parameters) == chosen


@pytest.mark.parametrize(
    ("images", "parameters", "code"),
    [
        ([METER], {"model": "lamp"}, "no_image_fits"),
        ([OLD, NEW], {"model": "lamp", "hw_rev": "d"}, "no_image_fits"),
        ([LAMP, METER], {}, "device_model_unknown"),
        ([OLD, NEW], {"model": "lamp"}, "device_model_unknown"),
    ],
)
def test_none_is_chosen_by_guessing(
    images: list[Image], parameters: dict[str, str], code: str
) -> None:
    with pytest.raises(Unfit) as unfit:
        choose(images, parameters)
    assert unfit.value.code == code


def test_images_between_which_no_device_could_be_told_apart() -> None:
    twin = image("lamp/twin.bin")
    assert ambiguous([METER, LAMP, twin]) == (LAMP, twin)
    assert ambiguous([OLD, image("lamp/b.bin", "lamp", "b")]) is not None
    assert ambiguous([LAMP, RADIO, METER]) is None
    assert ambiguous([OLD, NEW]) is None


ROLLOUT = Rollout(
    "r", 3, (LAMP,), Selection(everyone=True), Pace(), Timing(), StopRule(), NOW, enlisted=True
)
PART = Part("r", LAMP_1, Progress.QUEUED, NOW)
KNOWN = DeviceUpdate(LAMP_1)
DEVICE = a_device(id=LAMP_1, state=DeviceState.ACTIVE, parameters={"model": "lamp"})


def test_a_member_is_told() -> None:
    assert offer(ROLLOUT, PART, DEVICE, KNOWN) == Tell((LAMP,))


@pytest.mark.parametrize("state", [DeviceState.REVOKED, DeviceState.RETIRED, DeviceState.PENDING])
def test_who_is_no_member_is_not_told(state: DeviceState) -> None:
    assert offer(ROLLOUT, PART, replace(DEVICE, state=state), KNOWN) == Skip(GONE)


def test_who_was_removed_is_not_told() -> None:
    assert offer(ROLLOUT, PART, None, KNOWN) == Skip(GONE)


@pytest.mark.parametrize(
    ("known", "code"),
    [
        (replace(KNOWN, rollout_number=4), SUPERSEDED),
        (replace(KNOWN, running={LAMP.path: "2.0"}), RUNS_ALREADY),
        (replace(KNOWN, rolled_back=(LAMP.sha256,)), ROLLED_BACK_BEFORE),
    ],
)
def test_what_is_known_of_a_device_may_skip_it_unless_the_operator_insists(
    known: DeviceUpdate, code: str
) -> None:
    assert offer(ROLLOUT, PART, DEVICE, known) == Skip(code)
    assert offer(ROLLOUT, replace(PART, code=AGAIN), DEVICE, known) == Tell((LAMP,))


def test_a_rollout_that_insists_still_gives_way_to_a_newer_one() -> None:
    insisting = replace(ROLLOUT, again=True)
    rolled_back = replace(KNOWN, rolled_back=(LAMP.sha256,))
    assert offer(insisting, PART, DEVICE, rolled_back) == Tell((LAMP,))
    newer = replace(rolled_back, rollout_number=4)
    assert offer(insisting, PART, DEVICE, newer) == Skip(SUPERSEDED)


def test_what_no_image_fits_is_skipped_with_its_code() -> None:
    meter = replace(DEVICE, parameters={"model": "meter"})
    assert offer(ROLLOUT, PART, meter, KNOWN) == Skip("no_image_fits")
