"""Updates from the assignment to the final report: what installs, and what is refused and why."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from broker.protocol.updates import AssignedTarget, ImageFacts, Phase
from device_client.errors import ConnectionLost
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.health import Line, OnlineCheck
from device_client.update.installers.directory import DirectorySlots
from device_client.update.journal import Stage, looked_at
from tests.support.update_repository import NOW, MadeRepository, new_signer
from tests.support.updating import FACTORY, UpdatingDevice, flashed

IMAGE = b"a better meter, version two"
PATH = "meter/2.0.0/image"


@pytest.fixture
def made() -> MadeRepository:
    return MadeRepository()


@pytest.fixture
def device(made: MadeRepository, tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", made)


def published(device: UpdatingDevice, content: bytes = IMAGE, **facts: Any) -> AssignedTarget:
    """A signed image; the facts are those of an image that fits, but for what is given."""
    fitting: dict[str, Any] = {"model": "meter", "version": "2.0.0", "security_counter": 2}
    target = device.made.add(PATH, content, ImageFacts(**{**fitting, **facts}))
    device.made.publish()
    return target


async def test_installs_commits_and_reports_once(device: UpdatingDevice) -> None:
    target = published(device, support_until=NOW + timedelta(days=900))
    payload = device.made.assign(target)
    await device.follow(payload)
    assert device.current() == IMAGE
    assert device.counter == 2
    assert device.finals() == [(1, Phase.INSTALLED, None)]
    report = device.reports()[-1]
    assert report.running == {PATH: "2.0.0"}
    assert report.support_until == NOW + timedelta(days=900)
    await device.follow(payload)
    device.start()
    await device.follow(payload)
    assert device.finals() == [(1, Phase.INSTALLED, None)], "once"
    assert device.fetched == [f"{PATH}@0"]


async def test_a_target_that_runs_already_is_not_fetched_again(device: UpdatingDevice) -> None:
    target = published(device)
    await device.follow(device.made.assign(target))
    await device.follow(device.made.assign(target, sequence=2, rollout="again"))
    assert device.finals()[-1] == (2, Phase.INSTALLED, None)
    assert len(device.fetched) == 1


REFUSED = [
    ({"model": "gateway"}, UpdateCode.MODEL_WRONG),
    ({"hw_revs": ("b", "c")}, UpdateCode.HARDWARE_WRONG),
    ({"security_counter": 0}, UpdateCode.COUNTER_TOO_LOW),
    ({"min_source_version": "1.5"}, UpdateCode.SOURCE_TOO_OLD),
    ({"depends": {"radio": "1.0"}}, UpdateCode.DEPENDENCY_MISSING),
    ({"depends": {"main": "3.0"}}, UpdateCode.DEPENDENCY_MISSING),
    ({"component": "radio"}, UpdateCode.COMPONENT_UNKNOWN),
]


@pytest.mark.parametrize(("facts", "code"), REFUSED, ids=[str(code) for _, code in REFUSED])
async def test_refused_for_what_was_signed_of_it(
    device: UpdatingDevice, facts: dict[str, Any], code: UpdateCode
) -> None:
    target = published(device, **facts)
    await device.follow(device.made.assign(target))
    assert device.finals() == [(1, Phase.REFUSED, code)]
    assert device.current() == FACTORY
    assert device.fetched == []
    assert device.counter == 1


async def test_image_without_facts(device: UpdatingDevice) -> None:
    target = device.made.add(PATH, IMAGE, None)
    device.made.publish()
    await device.follow(device.made.assign(target))
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.FACTS_INVALID)]


async def test_director_and_offline_keys_disagree(device: UpdatingDevice) -> None:
    """A stolen director key can't install what wasn't signed."""
    target = published(device)
    evil = AssignedTarget(path=target.path, sha256="0" * 64, length=target.length)
    await device.follow(device.made.assign(evil))
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.TARGET_MISMATCH)]
    other = AssignedTarget(path="meter/unsigned", sha256=target.sha256, length=target.length)
    await device.follow(device.made.assign(other, sequence=2))
    assert device.finals()[-1] == (2, Phase.REFUSED, UpdateCode.TARGET_UNKNOWN)


async def unheeded(device: UpdatingDevice, payload: bytes) -> str | None:
    """Why an assignment was refused that isn't worth a report: anybody could have made it."""
    before = device.finals()
    await device.follow(payload)
    assert device.finals() == before
    assert device.current() == FACTORY
    refusal = looked_at(device.home, {}).refusal
    return refusal.code if refusal else None


async def test_replay_from_another_device(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device), device_id="meter-2")
    assert await unheeded(device, payload) == UpdateCode.ASSIGNMENT_NOT_OURS


async def test_assignment_by_another_key(device: UpdatingDevice) -> None:
    target = published(device)
    device.made.signers["director"] = [new_signer()]
    assert await unheeded(device, device.made.assign(target)) == UpdateCode.ASSIGNMENT_UNTRUSTED


async def test_assignment_by_a_revoked_director(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    device.made.rotate("director")
    assert await unheeded(device, payload) == UpdateCode.KEY_REVOKED


async def test_expired_assignment(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device), expires=NOW)
    assert await unheeded(device, payload) == UpdateCode.ASSIGNMENT_EXPIRED


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"{}", b"x" * 200_000])
async def test_garbage(device: UpdatingDevice, payload: bytes) -> None:
    published(device)
    assert await unheeded(device, payload) == UpdateCode.ASSIGNMENT_MALFORMED


async def test_older_assignment(device: UpdatingDevice) -> None:
    target = published(device, hw_revs=("b",))
    old = device.made.assign(target, sequence=4)
    await device.follow(device.made.assign(target, sequence=5))
    assert await unheeded(device, old) == UpdateCode.ASSIGNMENT_REPLAYED
    device.start()
    assert await unheeded(device, old) == UpdateCode.ASSIGNMENT_REPLAYED


async def test_another_image_than_the_signed_one(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    device.serve = {PATH: IMAGE[::-1]}
    await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_WRONG)]
    assert device.current() == FACTORY


async def test_image_that_is_too_long(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    device.serve = {PATH: IMAGE + b" and more"}
    await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_TOO_LONG)]


async def test_image_that_changes_while_it_is_fetched(device: UpdatingDevice) -> None:
    """What was kept of the first belongs to another image: noticed, thrown away, fetched anew."""
    payload = device.made.assign(published(device))
    staged = device.home / "main" / "slots" / "incoming"
    staged.mkdir(parents=True)
    sha256 = device.made.targets.targets[PATH].hashes["sha256"]
    (staged / sha256).write_bytes(b"half of another")
    seen = set[str | None]()

    def done() -> bool:
        work = device.updater.state.work
        seen.add(work.why if work else None)
        return bool(device.finals())

    await device.begin(payload, done)
    assert UpdateCode.IMAGE_CHANGED in seen
    assert device.fetched == [f"{PATH}@15", f"{PATH}@0"]
    assert device.finals() == [(1, Phase.INSTALLED, None)]


async def test_image_that_is_tampered_with_in_storage(device: UpdatingDevice) -> None:
    """While it waits for the night, somebody writes to the slot."""
    payload = device.made.assign(published(device), window="22:00-23:00")
    await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
    (staged,) = (device.home / "main" / "slots" / "incoming").iterdir()
    staged.write_bytes(IMAGE.replace(b"better", b"worse!"))
    device.clock = NOW + timedelta(hours=10)
    seen = set[str | None]()

    def done() -> bool:
        work = device.updater.state.work
        seen.add(work.why if work else None)
        return bool(device.finals())

    await device.begin(payload, done)
    assert UpdateCode.IMAGE_TAMPERED in seen
    assert device.current() == IMAGE, "fetched anew"


async def test_slow_retrieval(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))

    class Slow(UpdateRefused):
        pass

    async def fetch(_target: object, _sink: object) -> None:
        raise Slow(UpdateCode.IMAGE_TOO_SLOW, "1 byte a second")

    device.fetch = fetch  # type: ignore[method-assign, assignment]
    await device.follow(payload)
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.IMAGE_TOO_SLOW)]


def is_refused_often(device: UpdatingDevice, code: UpdateCode) -> Callable[[], bool]:
    """Whether far more tries were in vain than are made of what a try may mend."""
    last_asked = len(device.source.asked)

    def has_tried() -> bool:
        refusal, asked = device.updater.state.refusal, len(device.source.asked) - last_asked
        return asked > 20 * device.most_failures and refusal is not None and refusal.code == code

    return has_tried


@pytest.mark.parametrize("code", [UpdateCode.METADATA_EXPIRED, UpdateCode.METADATA_MISSING])
async def test_what_passes_by_itself_is_waited_for(
    device: UpdatingDevice, code: UpdateCode
) -> None:
    """The service was away for longer than its timestamp is good for, or can't be reached."""
    payload = device.made.assign(published(device))
    if code is UpdateCode.METADATA_EXPIRED:
        device.clock = NOW + timedelta(days=2)
        device.made.timestamp.expires = NOW + timedelta(days=1)
        device.made.publish_timestamp()
    else:
        del device.made.files["timestamp.json"]
    await device.begin(payload, is_refused_often(device, code))
    assert device.finals() == []
    device.made.timestamp.expires = NOW + timedelta(days=3)
    device.made.publish_timestamp()
    await device.follow(payload)
    assert device.finals() == [(1, Phase.INSTALLED, None)]


@pytest.mark.parametrize("code", [UpdateCode.HEALTH_FAILED, UpdateCode.HEALTH_TIMED_OUT])
async def test_rolls_back_what_is_not_well(device: UpdatingDevice, code: UpdateCode) -> None:
    payload = device.made.assign(published(device))
    device.health.why = UpdateRefused(code, "the radio is silent")
    await device.follow(payload)
    assert device.current() == FACTORY
    assert device.counter == 1, "never before the commit"
    assert device.finals() == [(1, Phase.ROLLED_BACK, code)]
    assert device.reports()[-1].detail == "the radio is silent"
    await device.follow(payload)
    assert len(device.finals()) == 1


async def test_boot_loop_ends_in_a_rollback(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    device.health.hangs = True
    await device.begin(payload, lambda: device.health.asked == 1)
    for _ in range(2):
        device.start()
        asked = device.health.asked
        await device.begin(payload, lambda asked=asked: device.health.asked > asked)  # type: ignore[misc]
        assert device.current() == IMAGE
    device.start()
    await device.settled()
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.ATTEMPTS_SPENT)]
    assert device.current() == FACTORY


async def test_switches_in_the_window_only(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device), window="22:00-04:00")
    await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
    assert device.current() == FACTORY
    assert [report.phase for report in device.reports()] == [Phase.WAITING]
    device.clock = NOW + timedelta(hours=10)
    await device.follow(payload)
    assert device.current() == IMAGE


async def test_expired_while_it_waited_nothing_is_switched(device: UpdatingDevice) -> None:
    device.made.timestamp.expires = NOW + timedelta(days=30)
    target = published(device)
    payload = device.made.assign(target, not_before=NOW + timedelta(days=8))
    await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
    device.clock = NOW + timedelta(days=9)
    device.start()
    await device.settled()
    assert device.current() == FACTORY
    renewed = device.made.assign(target, expires=NOW + timedelta(days=14))
    await device.follow(renewed)
    assert device.finals() == [(1, Phase.INSTALLED, None)]


@pytest.mark.parametrize("stage", [Stage.CHECKING, Stage.DOWNLOADING, Stage.READY])
@pytest.mark.parametrize("cancels", [True, False])
async def test_taken_back_in_every_stage(
    device: UpdatingDevice, stage: Stage, cancels: bool
) -> None:
    first = published(device)
    never = asyncio.Event()
    fetch = device.fetch

    async def stuck(*_: object) -> None:
        await never.wait()

    if stage is Stage.DOWNLOADING:
        device.fetch = stuck  # type: ignore[method-assign, assignment]
    if stage is Stage.CHECKING:
        del device.made.files["timestamp.json"]
        device.most_failures = 10**9
        device.start()
    payload = device.made.assign(first, window="01:00-02:00")
    await device.begin(payload, lambda: device.updater.state.stage is stage)
    device.fetch = fetch  # type: ignore[method-assign]
    device.made.publish_timestamp()
    other = device.made.add("meter/3/image", b"the third")
    device.made.publish()
    if cancels:
        await device.follow(device.made.assign(sequence=2))
        assert device.finals() == [
            (1, Phase.CANCELLED, UpdateCode.CANCELLED),
            (2, Phase.CANCELLED, UpdateCode.CANCELLED),
        ]
        assert device.current() == FACTORY
    else:
        await device.follow(device.made.assign(other, sequence=2, rollout="summer"))
        assert device.finals() == [
            (1, Phase.CANCELLED, UpdateCode.SUPERSEDED),
            (2, Phase.INSTALLED, None),
        ]
        assert device.current() == b"the third"


async def test_taken_back_during_the_trial_it_is_too_late(device: UpdatingDevice) -> None:
    payload = device.made.assign(published(device))
    device.health.hangs = True
    await device.begin(payload, lambda: device.health.asked == 1)
    device.health.hangs = False
    device.start()
    await device.follow(device.made.assign(sequence=2))
    assert device.finals() == [(1, Phase.INSTALLED, None), (2, Phase.CANCELLED, "cancelled")]


async def test_a_renewed_assignment_goes_on(device: UpdatingDevice) -> None:
    target = published(device)
    payload = device.made.assign(target, window="22:00-23:00")
    await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
    await device.follow(device.made.assign(target, sequence=2))
    assert device.finals() == [(2, Phase.INSTALLED, None)]
    assert len(device.fetched) == 1


class TestClocks:
    async def test_at_1970_expired_metadata_stays_expired(self, device: UpdatingDevice) -> None:
        device.clock = NOW + timedelta(days=3)
        await device.follow(device.made.assign(published(device), issued_at=device.clock))
        assert device.finals() == [(1, Phase.INSTALLED, None)]
        device.clock = NOW.replace(year=1970)
        device.start()
        device.made.timestamp.expires = NOW + timedelta(days=1)
        device.made.snapshot.expires = NOW + timedelta(days=1)
        target = published(device, b"frozen long ago")
        payload = device.made.assign(target, sequence=2)
        await device.begin(payload, is_refused_often(device, UpdateCode.METADATA_EXPIRED))
        assert device.fetched == [f"{PATH}@0"], "nothing of it"

    async def test_at_1970_fresh_metadata_is_good(self, device: UpdatingDevice) -> None:
        device.clock = NOW.replace(year=1970)
        await device.follow(device.made.assign(published(device)))
        assert device.current() == IMAGE

    async def test_in_the_future_it_is_refused_and_recovers(self, device: UpdatingDevice) -> None:
        payload = device.made.assign(published(device))
        device.clock = NOW + timedelta(days=4000)
        await device.begin(payload, lambda: device.updater.state.refusal is not None)
        assert device.finals() == []
        device.clock = NOW
        device.start()
        await device.follow(payload)
        assert device.current() == IMAGE

    async def test_somewhat_in_the_future_it_waits_and_recovers(
        self, device: UpdatingDevice
    ) -> None:
        """The assignment is good still, the timestamp isn't any more."""
        payload = device.made.assign(published(device), expires=NOW + timedelta(days=14))
        device.clock = NOW + timedelta(days=8)
        await device.begin(payload, is_refused_often(device, UpdateCode.METADATA_EXPIRED))
        assert device.finals() == []
        device.clock = NOW
        device.start()
        await device.follow(payload)
        assert device.finals() == [(1, Phase.INSTALLED, None)]

    async def test_backwards_nothing_is_lost(self, device: UpdatingDevice) -> None:
        payload = device.made.assign(published(device), window="22:00-23:00")
        await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
        device.clock = NOW - timedelta(days=700)
        device.start()
        await device.settled()
        assert device.current() == FACTORY
        device.clock = NOW + timedelta(hours=10)
        device.start()
        await device.follow(payload)
        assert device.finals() == [(1, Phase.INSTALLED, None)]

    async def test_a_stolen_director_can_not_set_the_clock_ahead(
        self, device: UpdatingDevice
    ) -> None:
        target = published(device)
        far = NOW + timedelta(days=9999)
        await device.follow(device.made.assign(target, issued_at=far, expires=far))
        assert device.timekeeper.now() <= NOW + timedelta(days=7, minutes=1)


async def test_an_image_that_can_not_reach_its_fleet_goes_back_by_itself(
    device: UpdatingDevice,
) -> None:
    payload = device.made.assign(published(device))
    device.health = OnlineCheck(Line(), 0.05)  # type: ignore[assignment]
    device.start()
    await device.begin(payload, lambda: bool(device.finals()))
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_TIMED_OUT)]
    assert device.current() == FACTORY


class Broker:
    """A connection whose other side answers only so often."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)

    async def ping(self) -> None:
        """As a connection's."""
        if not self.answers.pop(0):
            raise ConnectionLost("nobody answers")


async def test_a_connection_from_before_the_switch_proves_nothing(device: UpdatingDevice) -> None:
    """The new image has cut the device off, and nobody has noticed yet."""
    payload, line = device.made.assign(published(device)), Line()
    device.health = OnlineCheck(line, 0.5)  # type: ignore[assignment]
    device.start()
    with line.up(cast(Any, Broker(*[False] * 9))):
        await device.begin(payload, lambda: bool(device.finals()))
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_TIMED_OUT)]


async def test_a_connection_that_is_made_anew_proves_it(device: UpdatingDevice) -> None:
    payload, line = device.made.assign(published(device)), Line()
    device.health = OnlineCheck(line, 60)  # type: ignore[assignment]
    device.start()
    broker = Broker(False, True)
    with line.up(cast(Any, broker)):
        await device.begin(payload, lambda: bool(device.finals()))
    assert device.finals() == [(1, Phase.INSTALLED, None)]
    assert broker.answers == []


async def test_two_components_go_forward_and_back_together(
    device: UpdatingDevice, tmp_path: Path
) -> None:
    radio = DirectorySlots(tmp_path / "update" / "radio")
    device.updater.means.installers["radio"] = radio  # type: ignore[index]
    facts = ImageFacts(component="radio", model="meter", version="3.0", security_counter=0)
    one = published(device, depends={"radio": "3.0"})
    two = device.made.add("radio/3.0/image", b"radio waves", facts)
    device.made.publish()
    device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "no waves")
    await device.follow(device.made.assign(one, two))
    assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)]
    assert device.current() == FACTORY
    assert not (tmp_path / "update" / "radio" / "current").exists()
    device.health.why = None
    await device.follow(device.made.assign(one, two, sequence=2, rollout="again"))
    assert device.finals()[-1] == (2, Phase.INSTALLED, None)
    assert (tmp_path / "update" / "radio" / "current" / "image").read_bytes() == b"radio waves"
    assert device.reports()[-1].running == {PATH: "2.0.0", "radio/3.0/image": "3.0"}


async def test_two_images_for_one_component(device: UpdatingDevice) -> None:
    one = published(device)
    two = device.made.add("meter/other", b"other")
    device.made.publish()
    await device.follow(device.made.assign(one, two))
    assert device.finals() == [(1, Phase.REFUSED, UpdateCode.TARGET_MISMATCH)]
