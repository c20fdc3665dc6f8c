"""The words of an assignment."""

from datetime import UTC, datetime, timedelta

from broker.core.assigning import LIFETIME, given, message, stored_as
from broker.core.rollout import Image, Rollout, Selection, Timing
from broker.core.rollout_pace import Pace, StopRule
from broker.protocol.names import DeviceId
from broker.protocol.updates import ImageFacts

NOW = datetime(2026, 3, 1, tzinfo=UTC)
LAMP_1 = DeviceId("lamp-1")
IMAGE = Image(
    "lamp/2.0/lamp.bin",
    "a" * 64,
    10,
    ImageFacts(model="lamp", version="2.0", security_counter=1),
)
TIMING = Timing(NOW + timedelta(hours=1), NOW + timedelta(days=1), "22:00-04:00")
ROLLOUT = Rollout(
    "r", 1, (IMAGE,), Selection(everyone=True), Pace(), TIMING, StopRule(), NOW, enlisted=True
)


def test_it_says_what_when_and_where_from() -> None:
    assigned = given(ROLLOUT, LAMP_1, 7, (IMAGE,), "n" * 16, NOW)
    said = message(assigned, ROLLOUT, ("https://one/targets/", "https://two/targets"))
    assert (said.device_id, said.sequence, said.rollout) == (LAMP_1, 7, "r")
    assert (said.issued_at, said.expires) == (NOW, NOW + LIFETIME)
    assert (said.not_before, said.deadline) == (TIMING.not_before, TIMING.deadline)
    assert said.window == "22:00-04:00"
    (target,) = said.targets
    stored = f"lamp/2.0/{'a' * 64}.lamp.bin"
    assert (target.path, target.sha256, target.length) == (IMAGE.path, IMAGE.sha256, 10)
    assert target.sources == (f"https://one/targets/{stored}", f"https://two/targets/{stored}")


def test_calling_back_has_neither_images_nor_hours() -> None:
    assigned = given(ROLLOUT, LAMP_1, 8, (), "n" * 16, NOW, calls_back=7)
    said = message(assigned, ROLLOUT, ())
    assert assigned.calls_back == 7
    assert said.targets == ()
    assert (said.not_before, said.deadline, said.window) == (None, None, None)


def test_a_path_without_a_folder_is_stored_beside_the_others() -> None:
    assert stored_as("lamp.bin", "b" * 64) == f"{'b' * 64}.lamp.bin"
