"""Whoever has stolen all online keys, and the operator who takes the server back afterwards."""

import asyncio
import io
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.protocol import limits
from broker.protocol.updates import AssignedTarget, ImageFacts, Phase
from device_client.errors import ArgumentInvalid
from device_client.update import config, steps
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Running
from device_client.update.installers import directory
from device_client.update.installers.directory import DirectorySlots
from device_client.update.journal import Journal, Stage
from device_client.update.repository import Repository
from device_client.update.store import MetadataStore
from device_client.update.trial import Trial
from tests.support.update_repository import FACTS, NOW, MadeRepository, assignment
from tests.support.updating import DEVICE, FACTORY, UpdatingDevice, flashed, no_waiting

IMAGE = b"the second image"
END_OF_TIME = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
PATH = "meter/2.0.0/image.bin"


@pytest.fixture
def device(tmp_path: Path) -> UpdatingDevice:
    flashed(tmp_path / "update")
    return UpdatingDevice(tmp_path / "update", MadeRepository())


def published(
    device: UpdatingDevice, content: bytes = IMAGE, path: str = PATH, facts: ImageFacts = FACTS
) -> AssignedTarget:
    target = device.made.add(path, content, facts)
    device.made.publish()
    return target


def recover(device: UpdatingDevice) -> None:
    """As the operator does: new online keys by the offline ones, and all of it signed anew."""
    device.made.rotate("timestamp", "snapshot", "director")
    device.made.timestamp.expires = NOW + timedelta(days=7)
    device.made.publish()


class TestNumbers:
    async def test_numbers_that_a_thief_used_up_are_free_again(
        self, device: UpdatingDevice
    ) -> None:
        target = published(device)
        await device.follow(device.made.assign(sequence=limits.MAX_COUNTER))
        recover(device)
        await device.follow(device.made.assign(target, sequence=2))
        assert device.finals()[-1] == (2, Phase.INSTALLED, None)

    async def test_what_is_over_is_not_begun_again_by_new_directors(
        self, device: UpdatingDevice
    ) -> None:
        """The service hasn't heard that it was rolled back, and signs the same anew."""
        target = published(device)
        device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "the radio is silent")
        await device.follow(device.made.assign(target))
        recover(device)
        await device.follow(device.made.assign(target))
        assert device.health.asked == 1
        assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.HEALTH_FAILED)]

    async def test_no_number_is_too_high_for_a_report(self, device: UpdatingDevice) -> None:
        too_high = assignment(published(device), sequence=limits.MAX_COUNTER + 1)
        await device.follow(device.made.sign_assignment(too_high))
        assert device.finals() == []
        assert device.updater.state.sequence == 0

    async def test_a_planned_rotation_forgets_no_number(self, device: UpdatingDevice) -> None:
        """One former key of two stays: what both signed still counts, so replays are told."""
        target = published(device)
        await device.follow(device.made.assign(target, sequence=7))
        former = device.made.signers["director"]
        device.made.rotate("director")
        device.made.signers["director"] += former
        device.made._name_director()
        device.made.root.unrecognized_fields["x-muster-director"]["threshold"] = 1
        device.made.publish_root()
        await device.follow(device.made.assign(sequence=3))
        assert device.updater.state.sequence == 7


class TestTime:
    async def test_a_thief_of_all_online_keys_can_not_set_the_clock(
        self, device: UpdatingDevice
    ) -> None:
        """Neither for TLS, nor for updates once the director was replaced."""
        target = published(device)
        device.made.timestamp.expires = END_OF_TIME
        device.made.publish_timestamp()
        far = END_OF_TIME - timedelta(seconds=1)
        await device.follow(device.made.assign(sequence=1, issued_at=far, expires=END_OF_TIME))
        assert device.timekeeper.floor() < NOW
        recover(device)
        device.start()
        await device.follow(device.made.assign(target, sequence=2))
        assert device.finals()[-1] == (2, Phase.INSTALLED, None)

    def test_no_moment_is_too_late_to_be_counted_from(self, device: UpdatingDevice) -> None:
        before = device.timekeeper.now()
        device.timekeeper.not_before(END_OF_TIME)
        assert device.timekeeper.now() == before

    async def test_a_switch_at_the_end_of_time_ends_no_agent(self, device: UpdatingDevice) -> None:
        payload = device.made.assign(
            published(device), window="22:00-23:00", not_before=END_OF_TIME, expires=END_OF_TIME
        )
        await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
        async with device.attended(), asyncio.timeout(60):
            await device.pursuit.pursue(
                device.made.assign(sequence=2), DEVICE, device.fetch, no_waiting()
            )
        assert device.finals()[-1][1] is Phase.CANCELLED

    async def test_what_a_replaced_director_chose_is_not_switched(
        self, device: UpdatingDevice
    ) -> None:
        """A bomb set for later, when the server has long been taken back."""
        target = published(device)
        later = NOW + timedelta(days=8)
        payload = device.made.assign(target, not_before=later, expires=END_OF_TIME)
        await device.begin(payload, lambda: device.updater.state.stage is Stage.READY)
        recover(device)
        await device.pursuit.look_again()
        device.clock = later + timedelta(hours=1)
        device.start()
        assert await Trial(device.updater).settle() > 0
        assert device.current() == FACTORY
        device.made.timestamp.expires = device.clock + timedelta(days=3)
        device.made.snapshot.expires = device.clock + timedelta(days=3)
        device.made.publish()
        renewed = device.made.assign(
            target, issued_at=device.clock, expires=device.clock + timedelta(days=1)
        )
        await device.follow(renewed)
        assert device.finals() == [(1, Phase.INSTALLED, None)]


async def test_versions_that_a_thief_ran_forward_are_forgotten(device: UpdatingDevice) -> None:
    target = published(device)
    thief = device.made.fork()
    thief.timestamp.version = thief.snapshot.version = (1 << 31) - 2
    thief.publish(targets=False)
    device.source.files = thief.files
    await device.follow(thief.assign(sequence=1))
    recover(device)
    device.source.files = device.made.files
    await device.follow(device.made.assign(target, sequence=2))
    assert device.finals()[-1] == (2, Phase.INSTALLED, None)


async def test_an_image_leaves_what_runs_what_it_depends_on(device: UpdatingDevice) -> None:
    """Each of the two was signed; one beside the other wasn't meant."""
    slots = {"main": device.updater.means.installers["main"]}
    slots["radio"] = DirectorySlots(device.home / "radio")
    device.updater.means.installers.update(slots)  # type: ignore[attr-defined]
    device.updater.journal.state.running["radio"] = Running(version="1.0")
    main = device.made.add(
        PATH, IMAGE, ImageFacts(model="meter", version="2.0.0", security_counter=2,
                                depends={"radio": "2.0"}),
    )  # fmt: skip
    radio = {
        version: device.made.add(
            f"meter/radio-{version}.bin", version.encode(),
            ImageFacts(model="meter", version=version, security_counter=0, component="radio"),
        )
        for version in ("1.5", "2.1")
    }  # fmt: skip
    device.made.publish()
    await device.follow(device.made.assign(main, radio["2.1"]))
    assert device.finals()[-1] == (1, Phase.INSTALLED, None)
    await device.follow(device.made.assign(radio["1.5"], sequence=2))
    assert device.finals()[-1] == (2, Phase.REFUSED, UpdateCode.DEPENDENCY_MISSING)


async def test_nobody_has_a_device_switch_to_and_fro_all_day(device: UpdatingDevice) -> None:
    paths = [published(device, bytes([n]), f"meter/2.0.{n}/image.bin") for n in range(2)]
    most = device.updater.means.most_switches
    for number in range(most):
        await device.follow(device.made.assign(paths[number % 2], sequence=number + 1))
        assert device.finals()[-1][1] is Phase.INSTALLED
    once_more = device.made.assign(paths[most % 2], sequence=most + 1)
    await device.begin(once_more, lambda: device.updater.state.stage is Stage.READY)
    assert await Trial(device.updater).settle() > 0
    assert device.updater.state.stage is Stage.READY
    device.clock = NOW + timedelta(days=1, seconds=1)
    device.start()
    await device.follow(once_more)
    assert device.finals()[-1] == (most + 1, Phase.INSTALLED, None)


class TestArchives:
    async def test_one_that_fills_the_disk_leaves_room_for_the_way_back(
        self, device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = published(device, _archive({"a": b"x" * 100_000}), "meter/2.0.0/image.tar")

        def full(root: Path) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(directory, "_sync_tree", full)
        await device.follow(device.made.assign(target))
        assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.INSTALL_FAILED)]
        assert not list((device.home / "main" / "slots").glob(".*.new"))

    async def test_one_that_does_not_fit_is_not_begun(
        self, device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        target = published(device, _archive({"a": b"x" * 100_000}), "meter/2.0.0/image.tar")

        async def roomy(_: DirectorySlots) -> int:
            return 1 << 30

        monkeypatch.setattr(DirectorySlots, "room", roomy)
        monkeypatch.setattr(directory, "free_bytes", lambda _: (1 << 20) + 50_000)
        await device.follow(device.made.assign(target))
        assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.INSTALL_FAILED)]
        assert "more than is allowed" in (device.reports()[-1].detail or "")

    @pytest.mark.parametrize("fault", [KeyError("linkname"), NotImplementedError(), TypeError()])
    async def test_whatever_an_installer_stumbles_over_ends_in_a_rollback(
        self, device: UpdatingDevice, monkeypatch: pytest.MonkeyPatch, fault: Exception
    ) -> None:
        def stumble(*_: object) -> None:
            raise fault

        monkeypatch.setattr(DirectorySlots, "_install", stumble)
        await device.follow(device.made.assign(published(device)))
        assert device.finals() == [(1, Phase.ROLLED_BACK, UpdateCode.INSTALL_FAILED)]
        assert device.current() == FACTORY


def _archive(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


class TestFirstRoot:
    def test_what_is_no_root_is_not_remembered(self, tmp_path: Path) -> None:
        """Else a slip on the command line takes away the root that was flashed."""
        made = MadeRepository()
        file = tmp_path / "given.json"
        for wrong in (b"no root", made.files["timestamp.json"]):
            file.write_bytes(wrong)
            with pytest.raises(ArgumentInvalid):
                config.remember_root(tmp_path, file)
        assert config.first_root(tmp_path, None) is None

    async def test_another_one_is_heeded_and_the_same_again_changes_nothing(
        self, tmp_path: Path
    ) -> None:
        file, place = tmp_path / "given.json", tmp_path / "update"
        for made in (MadeRepository(), MadeRepository()):
            file.write_bytes(made.first_root)
            config.remember_root(place, file)
            made.rotate("timestamp")
            made.publish()
            store = MetadataStore(place / "metadata", config.first_root(place, None))
            source = UpdatingDevice(tmp_path / "other", made).source
            trusted = await Repository(store, source).refresh(NOW)
            assert trusted.root.version == 2
            config.remember_root(place, file)
            assert Repository(store, source).recall(NOW).root.version == 2


class TestJournal:
    def test_counters_that_are_no_text(self, tmp_path: Path) -> None:
        (tmp_path / "counters").write_bytes(b'{"\xff": 1}')
        journal = Journal(tmp_path)
        journal.open({"main": Running(security_counter=3)})
        assert journal.state.running["main"].security_counter == 3

    async def test_a_report_is_never_longer_than_the_service_takes(
        self, device: UpdatingDevice
    ) -> None:
        many = {f"part{n}": Running(path="x" * 250, version=str(n)) for n in range(16)}
        many |= {f"p{n}": Running(path=f"{n}" + "y" * 250, version=str(n)) for n in range(16)}
        device.updater.journal.state.running.update(many)
        await device.follow(device.made.assign(published(device)))
        text = device.updater.state.outbox[-1].text
        assert len(text) <= limits.MAX_STATEMENT
        assert device.finals() == [(1, Phase.INSTALLED, None)]

    def test_a_full_outbox_can_be_read_again(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path)
        journal.open({"main": Running()})
        state = journal.state
        for number in range(1, 300):
            state = steps.taken_up(state, assignment(sequence=number), NOW)
        assert state.outbox
        long = tuple(
            type(each)(report_id=each.report_id, sequence=each.sequence, is_final=True,
                       text='"' * limits.MAX_STATEMENT)
            for each in state.outbox
        )  # fmt: skip
        journal.change(type(state)(sequence=state.sequence, outbox=long))
        again = Journal(tmp_path)
        again.open({})
        assert again.state.sequence == 299
