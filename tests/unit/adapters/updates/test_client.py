"""What is published is TUF 1.0: python-tuf's own client reads it from a plain web server."""

from pathlib import Path

import pytest
from tuf.api.exceptions import ExpiredMetadataError, RepositoryError

from broker.adapters.updates.ceremonies import RootChange
from broker.adapters.updates.keys import ALGORITHMS, read_public
from broker.core.metadata_lifetime import Lifetimes
from broker.operating.updating import update_repository
from broker.protocol.updates import DIRECTOR_FIELD
from tests.support.update_workshop import make_workshop, served, tuf_client


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_target_is_downloaded(tmp_path: Path, algorithm: str) -> None:
    workshop = make_workshop(tmp_path, algorithm=algorithm)
    path = workshop.publish_image("1.0.0", b"firmware")
    with served(workshop.repository) as base:
        client = tuf_client(tmp_path / "client", base, workshop.first_root())
        target = client.get_targetinfo(path)
        assert target is not None
        assert target.custom == {
            "component": "main",
            "model": "meter",
            "version": "1.0.0",
            "security_counter": 1,
        }
        assert Path(client.download_target(target)).read_bytes() == b"firmware"
        assert DIRECTOR_FIELD in client._trusted_set.root.unrecognized_fields


def test_a_component_of_its_own_has_a_deeper_path(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    workshop.add("1.0.0", component="radio")
    workshop.sign("targets-1")
    workshop.desk.publish()
    with served(workshop.repository) as base:
        client = tuf_client(tmp_path / "client", base, workshop.first_root())
        assert client.get_targetinfo("meter/radio/1.0.0/firmware-1.0.0.bin") is not None


def test_root_was_rotated_several_times_while_the_client_slept(tmp_path: Path) -> None:
    """In the end no key is left that signed the root which the client knows."""
    workshop = make_workshop(tmp_path)
    path = workshop.publish_image()
    first = workshop.first_root()
    signers = ["root-1", "root-2", "root-3"]
    for turn, gone in enumerate(["root-1", "root-2", "root-3"]):
        new = f"root-{4 + turn}"
        workshop.new_key(new)
        add = [read_public(workshop.keys / f"{new}.pub")]
        remove = [read_public(workshop.keys / f"{gone}.pub").keyid[:12]]
        change = RootChange(
            add_root=add, remove_root=remove, new_online=("snapshot", "timestamp", "director")
        )
        workshop.desk.rotate_root(change, "ed25519")
        workshop.sign(*signers, new)
        workshop.desk.publish()
        signers = [*signers[1:], new]
    with served(workshop.repository) as base:
        client = tuf_client(tmp_path / "client", base, first)
        assert client.get_targetinfo(path) is not None
        assert client._trusted_set.root.version == 4


def test_a_client_follows_new_targets_keys(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    path = workshop.publish_image()
    with served(workshop.repository) as base:
        client = tuf_client(tmp_path / "client", base, workshop.first_root())
        assert client.get_targetinfo(path) is not None
        workshop.new_key("targets-9")
        gone = [read_public(workshop.keys / f"targets-{n}.pub").keyid for n in (1, 2)]
        new = [read_public(workshop.keys / "targets-9.pub")]
        change = RootChange(add_targets=new, remove_targets=gone)
        workshop.desk.rotate_root(change, "ed25519")
        workshop.sign("root-1", "root-3", "targets-9")
        workshop.desk.publish()
        later = tuf_client(tmp_path / "client", base, None)
        assert later.get_targetinfo(path) is not None


def test_a_refreshed_repository_is_read_on(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    path = workshop.publish_image()
    repository = update_repository(workshop.home, None)
    with served(workshop.repository) as base:
        tuf_client(tmp_path / "client", base, workshop.first_root()).refresh()
        assert repository.refresh(workshop.clock.now() + Lifetimes().snapshot * 0.9)
        later = tuf_client(tmp_path / "client", base, None)
        assert later.get_targetinfo(path) is not None
        assert later._trusted_set.snapshot.version == 3


def test_what_was_not_refreshed_is_refused(tmp_path: Path) -> None:
    """A freeze: the client sees that its server shows it an old state."""
    workshop = make_workshop(tmp_path)
    workshop.publish_image()
    with served(workshop.repository) as base:
        client = tuf_client(tmp_path / "client", base, workshop.first_root())
        client._trusted_set.reference_time += Lifetimes().timestamp * 1.01
        with pytest.raises(ExpiredMetadataError):
            client.refresh()


def test_another_repository_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "ours").mkdir()
    ours, other = make_workshop(tmp_path / "ours"), make_workshop(tmp_path / "other")
    with served(other.repository) as base:
        client = tuf_client(tmp_path / "client", base, ours.first_root())
        with pytest.raises(RepositoryError):
            client.refresh()
