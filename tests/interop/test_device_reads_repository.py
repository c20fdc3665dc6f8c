"""What `muster update` publishes, read by the device's own verifier: two programs that share no
code but the wire's words."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from broker.adapters.updates.ceremonies import RootChange
from broker.adapters.updates.keys import ALGORITHMS
from broker.operating.updating import update_repository
from broker.protocol import codec
from broker.protocol.names import DeviceId
from broker.protocol.updates import AssignedTarget, Assignment
from device_client.update.assignment import authentic, resolve
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.repository import Repository
from device_client.update.store import MetadataStore
from tests.support.update_workshop import Workshop, make_workshop

DEVICE = DeviceId("meter-7")


class Files:
    """A source of metadata that has what is published now."""

    def __init__(self, workshop: Workshop) -> None:
        self._repository = update_repository(workshop.home, None)

    async def fetch(self, name: str, limit: int) -> bytes | None:
        files: Mapping[str, bytes] = self._repository.files()
        return files.get(name)


def device(folder: Path, workshop: Workshop, first: bytes) -> Repository:
    store = MetadataStore(folder, first)
    store.open()
    return Repository(store, Files(workshop))


def rotate_everything(workshop: Workshop) -> None:
    for name in ("root-8", "targets-8"):
        workshop.new_key(name)
    change = RootChange(
        add_root=workshop.key_set(["root-8"], 1).keys,
        remove_root=[workshop.keyid("root-3")],
        add_targets=workshop.key_set(["targets-8"], 1).keys,
        remove_targets=[workshop.keyid("targets-1"), workshop.keyid("targets-2")],
        new_online=("snapshot", "timestamp", "director"),
    )
    workshop.desk.rotate_root(change, "ed25519")
    workshop.sign("root-1", "root-2", "root-8", "targets-8")
    workshop.desk.publish()


def assignment_of(workshop: Workshop, path: str) -> bytes:
    """What the service retains for the device."""
    repository, now = update_repository(workshop.home, None), datetime.now(UTC)
    target = next(each for each in repository.targets() if each.path == path)
    wanted = Assignment(
        device_id=DEVICE,
        sequence=1,
        rollout="r1",
        nonce="n" * 16,
        issued_at=now,
        expires=now + timedelta(days=1),
        targets=(AssignedTarget(path=path, sha256=target.sha256, length=target.length),),
    )
    return codec.encode(repository.sign_assignment(codec.encode(wanted).decode()))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_an_assigned_image_is_found_and_vouched_for(tmp_path: Path, algorithm: str) -> None:
    workshop = make_workshop(tmp_path, algorithm=algorithm)
    path = workshop.add("1.4.0", component="main", hw_revs=("A",), min_source_version="1.0")
    workshop.sign("targets-1")
    workshop.desk.publish()
    now = datetime.now(UTC)
    repository = device(tmp_path / "device", workshop, workshop.first_root())
    trusted = await repository.refresh(now)
    assignment = authentic(assignment_of(workshop, path), trusted, DEVICE, now)
    (image,) = await resolve(assignment, repository, trusted)
    assert image.facts.version == "1.4.0"
    assert image.facts.hw_revs == ("A",)


async def test_a_device_follows_a_rotation_of_every_key(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    path = workshop.publish_image()
    now = datetime.now(UTC)
    first = workshop.first_root()
    await device(tmp_path / "device", workshop, first).refresh(now)
    old = assignment_of(workshop, path)
    rotate_everything(workshop)
    repository = device(tmp_path / "device", workshop, first)
    trusted = await repository.refresh(now)
    assert await repository.find(trusted, path) is not None
    authentic(assignment_of(workshop, path), trusted, DEVICE, now)
    with pytest.raises(UpdateRefused):
        authentic(old, trusted, DEVICE, now)


async def test_a_revoked_image_is_not_found(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    path = workshop.publish_image()
    now = datetime.now(UTC)
    assigned = assignment_of(workshop, path)
    workshop.desk.revoke(path, "broken")
    workshop.sign("targets-1")
    workshop.desk.publish()
    repository = device(tmp_path / "device", workshop, workshop.first_root())
    trusted = await repository.refresh(now)
    assignment = authentic(assigned, trusted, DEVICE, now)
    with pytest.raises(UpdateRefused):
        await resolve(assignment, repository, trusted)


async def test_what_nobody_refreshed_is_a_freeze(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    repository = device(tmp_path / "device", workshop, workshop.first_root())
    with pytest.raises(UpdateRefused) as caught:
        await repository.refresh(datetime.now(UTC) + timedelta(days=3, minutes=1))
    assert caught.value.why is UpdateCode.METADATA_EXPIRED
