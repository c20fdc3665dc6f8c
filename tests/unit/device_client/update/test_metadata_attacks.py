"""Attacks on the repository's metadata, each refused with its own code; nothing bad is kept."""

from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import pytest
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from device_client.update import metadata
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.repository import Repository
from device_client.update.store import MetadataStore
from device_client.update.trusted import Trusted
from tests.support.update_repository import (
    NOW,
    ROLES,
    FilesSource,
    MadeRepository,
    new_signer,
    signed,
)


@pytest.fixture
def made() -> MadeRepository:
    return MadeRepository(threshold=2)


@pytest.fixture
def device(tmp_path: Path, made: MadeRepository) -> "Device":
    return Device(tmp_path / "metadata", made)


class Device:
    """What a device keeps, and where it asks."""

    def __init__(self, directory: Path, made: MadeRepository) -> None:
        self.made = made
        self.store = MetadataStore(directory, made.first_root)

    async def refresh(self, days: int = 0) -> Trusted:
        repository = Repository(self.store, FilesSource(self.made.files))
        return await repository.refresh(NOW + timedelta(days=days))

    async def refused(self, days: int = 0) -> UpdateCode:
        """Why a refresh fails."""
        with pytest.raises(UpdateRefused) as caught:
            await self.refresh(days)
        assert caught.value.stable_code == caught.value.why
        return caught.value.why

    def kept(self) -> dict[str, bytes | None]:
        """What is trusted on the disk."""
        return {role: self.store.read(role) for role in ROLES}


async def test_whole_and_fresh_metadata_is_trusted(device: Device) -> None:
    trusted = await device.refresh()
    assert trusted.timestamp is not None
    assert device.kept()["timestamp"] == device.made.files["timestamp.json"]


async def test_arbitrary_metadata_by_unknown_keys(device: Device) -> None:
    await device.refresh()
    device.made.signers["timestamp"] = [new_signer(), new_signer()]
    device.made.publish_timestamp()
    before = device.kept()
    assert await device.refused() is UpdateCode.SIGNER_UNKNOWN
    assert device.kept() == before


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
async def test_one_of_two_signatures(device: Device, role: str) -> None:
    device.made.signers[role].pop()
    device.made.publish()
    assert await device.refused() is UpdateCode.SIGNATURES_TOO_FEW


async def test_one_key_under_two_ids_counts_once(device: Device) -> None:
    made = device.made
    other = made.signers["timestamp"].pop()
    made.root.revoke_key(other.public_key.keyid, "timestamp")
    first = made.signers["timestamp"][0]
    twin = new_signer()
    twin.public_key.keyval = dict(first.public_key.keyval)
    twin.public_key.unrecognized_fields["also"] = "known as"
    _rename(twin)
    twin._private_key = first._private_key
    made.root.add_key(twin.public_key, "timestamp")
    made.signers["timestamp"].append(twin)
    made.publish_root()
    made.publish()
    assert await device.refused() is UpdateCode.SIGNATURES_TOO_FEW


async def test_a_key_whose_id_is_not_its_hash_counts_for_nothing(device: Device) -> None:
    made = device.made
    liar = new_signer()
    liar.public_key.keyid = "0" * 64
    made.root.revoke_key(made.signers["timestamp"].pop().public_key.keyid, "timestamp")
    made.root.add_key(liar.public_key, "timestamp")
    made.signers["timestamp"].append(liar)
    made.publish_root()
    made.publish()
    assert await device.refused() is UpdateCode.SIGNATURES_TOO_FEW


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
async def test_revoked_keys(device: Device, role: str) -> None:
    await device.refresh()
    gone = device.made.rotate(role)
    device.made.signers[role] = gone
    device.made.publish()
    assert await device.refused() is UpdateCode.KEY_REVOKED


async def test_a_revoked_key_of_whoever_delegates(device: Device) -> None:
    """Each model has a role of its own, signed by the targets keys of the time."""
    thief, _ = device.made.signers["targets"]
    device.made.delegate("model-meter", ["meter/*/*"])
    device.made.rotate("targets")
    device.made.signers["model-meter"] = [thief]
    device.made.publish()
    repository = Repository(device.store, FilesSource(device.made.files))
    trusted = await repository.refresh(NOW)
    with pytest.raises(UpdateRefused) as caught:
        await repository.find(trusted, "meter/2.0.0/image")
    assert caught.value.why is UpdateCode.KEY_REVOKED


async def test_revoked_while_offline_several_roots_ago(device: Device) -> None:
    gone = device.made.rotate("targets")
    device.made.rotate("snapshot", "timestamp")
    device.made.rotate("root")
    device.made.signers["targets"] = gone
    device.made.publish()
    assert await device.refused() is UpdateCode.KEY_REVOKED
    assert await device.refused() is UpdateCode.KEY_REVOKED, "after a restart too"


def old_timestamp(made: MadeRepository) -> None:
    before = made.files["timestamp.json"]
    made.publish_timestamp()
    made.files["timestamp.json"] = before


def old_snapshot(made: MadeRepository) -> None:
    made.snapshot.version -= 2
    made.publish_snapshot()


def old_targets(made: MadeRepository) -> None:
    made.targets.version -= 2
    made.publish()


def lost_role(made: MadeRepository) -> None:
    made.delegated.clear()
    del made.snapshot.meta["meters.json"]
    made.publish()


@pytest.mark.parametrize("back", [old_timestamp, old_snapshot, old_targets, lost_role])
async def test_rollback(device: Device, back: Callable[[MadeRepository], None]) -> None:
    device.made.delegate("meters", ["meter/*"])
    for _ in range(3):
        device.made.publish()
    await device.refresh()
    if back is old_timestamp:
        earlier = device.made.files["timestamp.json"]
        device.made.publish_timestamp()
        await device.refresh()
        device.made.files["timestamp.json"] = earlier
    else:
        back(device.made)
    assert await device.refused() is UpdateCode.METADATA_ROLLED_BACK


async def test_root_that_is_not_the_next(device: Device) -> None:
    device.made.root.version += 1
    device.made.publish_root()
    device.made.files["2.root.json"] = device.made.files["3.root.json"]
    assert await device.refused() is UpdateCode.METADATA_ROLLED_BACK


async def test_root_signed_by_the_new_keys_only(device: Device) -> None:
    device.made.rotate("root")
    made = Metadata.from_bytes(device.made.files["2.root.json"])
    for keyid in list(made.signatures):
        if keyid not in [s.public_key.keyid for s in device.made.signers["root"]]:
            del made.signatures[keyid]
    device.made.files["2.root.json"] = made.to_bytes()
    assert await device.refused() is UpdateCode.SIGNER_UNKNOWN


async def test_root_signed_by_the_old_keys_only(device: Device) -> None:
    gone = device.made.rotate("root")
    device.made.files["2.root.json"] = signed(device.made.root, gone)
    assert await device.refused() is UpdateCode.SIGNER_UNKNOWN


@pytest.mark.parametrize(("role", "days"), [("timestamp", 8), ("snapshot", 31), ("root", 366)])
async def test_freeze(device: Device, role: str, days: int) -> None:
    if role != "timestamp":
        device.made.timestamp.expires = NOW + timedelta(days=1000)
    if role == "root":
        device.made.snapshot.expires = NOW + timedelta(days=1000)
        device.made.targets.expires = NOW + timedelta(days=1000)
    device.made.publish()
    assert await device.refused(days) is UpdateCode.METADATA_EXPIRED


async def test_a_frozen_device_goes_on_when_fresh_metadata_comes(device: Device) -> None:
    await device.refresh()
    assert await device.refused(8) is UpdateCode.METADATA_EXPIRED
    device.made.timestamp.expires = NOW + timedelta(days=14)
    device.made.publish_timestamp()
    await device.refresh(8)


@pytest.mark.parametrize("name", ["timestamp.json", "1.snapshot.json", "1.targets.json"])
async def test_endless_data(device: Device, name: str) -> None:
    device.made.files[name] += b" " * (1 << 20)
    assert await device.refused() is UpdateCode.METADATA_TOO_LARGE


@pytest.mark.parametrize(
    ("longer", "code"),
    [(-1, UpdateCode.METADATA_MIXED), (0, UpdateCode.METADATA_MIXED),
     (1, UpdateCode.METADATA_TOO_LARGE)],
    ids=["shorter", "of-the-same-length", "longer"],
)  # fmt: skip
async def test_mixed_targets(device: Device, longer: int, code: UpdateCode) -> None:
    """Both are signed and fresh; they don't belong together. What is longer isn't read to its end,
    so only that is known of it."""
    made, names = device.made, ("meter/2.0.0/image", "meter/2.1.0/image")
    made.add(names[0], b"old")
    if longer > 0:
        made.add(names[1], b"old, too")
    made.publish()
    old = made.files[f"{made.targets.version}.targets.json"]
    made.targets.targets.clear()
    for name in names[: 2 if longer < 0 else 1]:
        made.add(name, b"new")
    made.publish()
    name = f"{made.targets.version}.targets.json"
    assert (len(old) > len(made.files[name])) - (len(old) < len(made.files[name])) == longer
    made.files[name] = old
    assert await device.refused() is code


@pytest.mark.parametrize("hashes", [True, False])
async def test_mixed_versions(tmp_path: Path, hashes: bool) -> None:
    made = MadeRepository(hashes=hashes)
    made.publish()
    made.files["2.targets.json"] = made.files["1.targets.json"]
    assert await Device(tmp_path, made).refused() is UpdateCode.METADATA_MIXED


async def test_fast_forward_to_the_end(device: Device) -> None:
    device.made.timestamp.version = metadata.HIGHEST_VERSION
    device.made.publish_timestamp()
    assert await device.refused() is UpdateCode.VERSION_TOO_HIGH


async def test_fast_forward_is_recovered_from_by_new_keys(device: Device) -> None:
    made = device.made
    versions = made.timestamp.version, made.snapshot.version, made.targets.version
    made.timestamp.version = made.snapshot.version = made.targets.version = 1_000_000
    made.publish()
    await device.refresh()
    made.timestamp.version, made.snapshot.version, made.targets.version = versions
    made.publish()
    assert await device.refused() is UpdateCode.METADATA_ROLLED_BACK
    made.rotate("timestamp", "snapshot")
    made.publish()
    trusted = await device.refresh()
    assert trusted.timestamp is not None
    assert trusted.timestamp.version < 1_000_000


async def test_many_roots_are_followed_one_by_one(device: Device) -> None:
    for _ in range(7):
        device.made.rotate("root", "targets", "snapshot", "timestamp")
    device.made.publish()
    assert (await device.refresh()).root.version == 8


async def test_damaged_root_in_storage_begins_again_from_the_flashed_one(device: Device) -> None:
    device.made.rotate("root")
    device.made.publish()
    await device.refresh()
    device.store.write("root", b"{}")
    assert (await device.refresh()).root.version == 2


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
async def test_tampered_metadata_in_storage_is_fetched_anew(device: Device, role: str) -> None:
    await device.refresh()
    whole = device.kept()[role]
    assert whole is not None
    device.store.write(role, whole.replace(b'"version": 1', b'"version": 7'))
    await device.refresh()
    assert device.kept()[role] == whole


async def test_absent(device: Device) -> None:
    del device.made.files["timestamp.json"]
    assert await device.refused() is UpdateCode.METADATA_MISSING


async def test_without_a_flashed_root_nothing_is_trusted(tmp_path: Path, device: Device) -> None:
    device.store = MetadataStore(tmp_path / "other", None)
    assert await device.refused() is UpdateCode.ROOT_MISSING


async def test_delegated_role_speaks_for_its_paths_only(device: Device) -> None:
    role = device.made.delegate("meters", ["meter/*/image"])
    device.made.add("meter/2/image", b"good", to=role)
    device.made.add("gateway/2/image", b"not its own", to=role)
    device.made.publish()
    trusted = await device.refresh()
    repository = Repository(device.store, FilesSource(device.made.files))
    assert await repository.find(trusted, "meter/2/image") is not None
    assert await repository.find(trusted, "gateway/2/image") is None
    assert await repository.find(trusted, "meter/2/deep/image") is None


def _rename(signer: CryptoSigner) -> None:
    """The key's right id, now that it says something else."""
    text = encode_canonical(signer.public_key.to_dict())
    assert text is not None
    signer.public_key.keyid = sha256(text.encode()).hexdigest()
