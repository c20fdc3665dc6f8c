"""The repository as the service sees it."""

import base64
import json
import re
import stat
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.key_files import read_key, write_key
from broker.adapters.updates.ceremonies import RootChange
from broker.adapters.updates.keys import ALGORITHMS
from broker.adapters.updates.locking import held
from broker.core.findings import Level
from broker.core.metadata_lifetime import Lifetimes
from broker.entry.cli.update_status import show_repository
from broker.operating.updating import UpdateDesk, update_repository
from broker.ports.updates import UpdateCode, UpdateError, UpdateRepository
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import DIRECTOR_FIELD
from broker.services.update_findings import examine_updates
from tests.support.update_workshop import Workshop, make_workshop


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return make_workshop(tmp_path)


def test_it_meets_the_port(workshop: Workshop) -> None:
    repository: UpdateRepository = update_repository(workshop.home, None)
    assert set(repository.files()) == {
        *("1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json")
    }


def test_a_home_without_a_repository_has_nothing(tmp_path: Path) -> None:
    repository = update_repository(MusterHome(tmp_path), None)
    now = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    assert repository.files() == {}
    assert repository.targets() == []
    assert repository.lapsing(now) == []
    assert not repository.refresh(now)
    with pytest.raises(UpdateError) as caught:
        repository.sign_assignment("{}")
    assert caught.value.code is UpdateCode.REPOSITORY_MISSING
    assert examine_updates(repository, now) == []


def test_what_is_published_later_is_seen(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    assert repository.targets() == []
    path = workshop.publish_image("1.0.0", b"content")
    (target,) = repository.targets()
    assert (target.path, target.length) == (path, 7)
    assert repository.image(path, target.sha256).read_bytes() == b"content"
    assert "1.model-meter.json" in repository.files()


@pytest.mark.parametrize("path", ["meter/1.0.0/none", "../keys/x", ""])
def test_what_is_not_published_has_no_file(workshop: Workshop, path: str) -> None:
    workshop.publish_image()
    with pytest.raises(UpdateError) as caught:
        update_repository(workshop.home, None).image(path, "0" * 64)
    assert caught.value.code is UpdateCode.IMAGE_UNKNOWN


def test_timestamp_is_signed_anew_when_a_third_is_left(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    now = workshop.clock.now()
    assert not repository.refresh(now)
    assert not repository.refresh(now + timedelta(days=1, hours=23))
    assert repository.refresh(now + timedelta(days=2))
    files = repository.files()
    assert json.loads(files["timestamp.json"])["signed"]["version"] == 2
    assert "1.snapshot.json" in files
    assert not repository.refresh(now + timedelta(days=2, hours=1))


def test_snapshot_is_signed_anew_with_it(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    assert repository.refresh(workshop.clock.now() + Lifetimes().snapshot)
    assert "2.snapshot.json" in repository.files()


def test_a_clock_that_went_back_signs_nothing(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    assert not repository.refresh(datetime.fromisoformat("1970-01-01T00:00:00+00:00"))


def test_months_of_refreshing_leave_two_states(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    for day in range(2, 60, 2):
        assert repository.refresh(workshop.clock.now() + timedelta(days=day))
    assert len(list(workshop.repository.glob("metadata.*"))) == 2
    assert len(list((workshop.repository / "metadata").iterdir())) <= 5


def test_while_a_command_works_refreshing_waits_for_the_next_time(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    later = workshop.clock.now() + timedelta(days=2)
    with held(workshop.desk.folders):
        assert not repository.refresh(later)
    assert repository.refresh(later)


def test_commands_wait_for_each_other(workshop: Workshop) -> None:
    done = threading.Event()

    def add() -> None:
        workshop.add()
        done.set()

    with held(workshop.desk.folders):
        other = threading.Thread(target=add)
        other.start()
        assert not done.is_set()
    other.join()
    assert done.is_set()
    with held(workshop.desk.folders), pytest.raises(UpdateError) as caught:
        held(workshop.desk.folders, patience_s=0).__enter__()
    assert caught.value.code is UpdateCode.REPOSITORY_BUSY


def test_a_key_that_is_gone_is_named(workshop: Workshop) -> None:
    for path in workshop.desk.folders.keys.glob("timestamp-*"):
        path.unlink()
    with pytest.raises(UpdateError) as caught:
        update_repository(workshop.home, None).refresh(workshop.clock.now() + timedelta(days=2))
    assert caught.value.code is UpdateCode.KEY_MISSING
    assert "timestamp" in str(caught.value)
    workshop.desk.rotate_root(RootChange(new_online=["timestamp"]), "ed25519")
    workshop.sign("root-1", "root-2")
    workshop.desk.publish()


@pytest.mark.parametrize("role", ["snapshot", "timestamp", "director"])
def test_doctor_says_at_once_that_an_online_key_is_gone(workshop: Workshop, role: str) -> None:
    """Not days later, when devices begin to refuse."""
    repository, now = update_repository(workshop.home, None), workshop.clock.now()
    assert repository.unusable_keys() == []
    (key,) = workshop.desk.folders.keys.glob(f"{role}-*")
    key.chmod(0o644)
    (exposed,) = examine_updates(repository, now)
    assert exposed.level is Level.ERROR
    key.unlink()
    (gone,) = examine_updates(repository, now)
    assert gone.level is Level.ERROR
    assert f"--new-online {role}" in gone.remedy


def test_doctor_says_that_an_image_is_gone_and_how_it_comes_back(workshop: Workshop) -> None:
    path = workshop.publish_image()
    now = workshop.clock.now()
    (file,) = workshop.desk.folders.targets.rglob("*.bin")
    for spoil in (lambda: file.write_bytes(b""), file.unlink):
        spoil()
        (gone,) = examine_updates(update_repository(workshop.home, None), now)
        assert (gone.level, gone.subject) == (Level.ERROR, path)
    workshop.publish_image()
    (fine,) = examine_updates(update_repository(workshop.home, None), now)
    assert fine.level is Level.OK


def test_a_repository_whose_link_is_gone_is_no_home_without_one(workshop: Workshop) -> None:
    workshop.publish_image()
    link = workshop.desk.folders.metadata
    name = link.readlink()
    link.unlink()
    (finding,) = examine_updates(update_repository(workshop.home, None), workshop.clock.now())
    assert finding.level is Level.ERROR
    assert f"ln -s {name} {link}" in finding.remedy
    with pytest.raises(UpdateError) as caught:
        workshop.desk.view()
    assert caught.value.code is UpdateCode.REPOSITORY_DAMAGED
    link.symlink_to(name)
    assert workshop.desk.view().roles


def test_doctor_without_the_passphrase_does_not_call_closed_keys_broken(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path)
    for key in workshop.desk.folders.keys.glob("*.key"):
        signing = read_key(key)
        key.unlink()
        write_key(key, signing, b"secret")
    assert update_repository(workshop.home, None).unusable_keys() == []
    assert update_repository(workshop.home, b"secret").unusable_keys() == []
    assert len(update_repository(workshop.home, b"wrong").unusable_keys()) == 3


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_assignment_verifies_by_the_key_in_root(tmp_path: Path, algorithm: str) -> None:
    workshop = make_workshop(tmp_path, algorithm=algorithm)
    repository = update_repository(workshop.home, None)
    signed = repository.sign_assignment('{"some":"text"}')
    root = json.loads(repository.files()["1.root.json"])["signed"]
    (signature,) = signed.signatures
    assert root[DIRECTOR_FIELD] == {"keyids": [signature.keyid], "threshold": 1}
    assert not any(signature.keyid in role["keyids"] for role in root["roles"].values())
    public = root["keys"][signature.keyid]["keyval"]["public"]
    raw, statement = base64.b64decode(signature.signature), assignment_statement(signed.assignment)
    if algorithm == "ed25519":
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(raw, statement)
    else:
        key = load_pem_public_key(public.encode())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(raw, statement, ec.ECDSA(hashes.SHA256()))


def test_the_director_is_rotated_under_a_running_service(workshop: Workshop) -> None:
    repository = update_repository(workshop.home, None)
    before = repository.sign_assignment("{}").signatures[0].keyid
    workshop.desk.rotate_root(RootChange(new_online=["director"]), "ed25519")
    assert repository.sign_assignment("{}").signatures[0].keyid == before
    workshop.sign("root-1", "root-2")
    workshop.desk.publish()
    assert repository.sign_assignment("{}").signatures[0].keyid != before


def test_keys_are_closed_and_encrypted_by_the_homes_passphrase(tmp_path: Path) -> None:
    workshop = make_workshop(tmp_path / "other", publish=False)
    home = MusterHome(tmp_path)
    desk = UpdateDesk(home, b"secret", workshop.clock)
    desk.create(
        workshop.key_set(["root-1"], 1), workshop.key_set(["targets-1"], 1), Lifetimes(), "ed25519"
    )
    desk.sign([workshop.key("root-1"), workshop.key("targets-1")], desk.staged())
    desk.publish()
    for path in desk.folders.keys.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert b"ENCRYPTED" in path.read_bytes()
    update_repository(home, b"secret").sign_assignment("{}")
    with pytest.raises(UpdateError) as caught:
        update_repository(home, None).sign_assignment("{}")
    assert caught.value.code is UpdateCode.KEY_UNUSABLE


def test_every_role_that_lapses_is_announced(workshop: Workshop) -> None:
    path = workshop.publish_image()
    repository = update_repository(workshop.home, None)
    now = workshop.clock.now()
    assert repository.lapsing(now) == []
    (fine,) = examine_updates(repository, now)
    assert fine.level is Level.OK
    lapsing = [lapse.role for lapse in repository.lapsing(now + timedelta(days=2, hours=12))]
    assert lapsing == ["timestamp"]
    year = now + timedelta(days=366)
    assert {lapse.role for lapse in repository.lapsing(year)} == {
        *("root", "targets", "model-meter", "snapshot", "timestamp")
    }
    findings = examine_updates(repository, year)
    assert {finding.level for finding in findings} == {Level.ERROR}
    assert path


def test_status_tells_what_has_lapsed_from_what_soon_will(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    workshop.clock.at = workshop.clock.now() + timedelta(days=2, hours=12)
    show_repository(workshop.desk.view())
    said = capsys.readouterr()
    assert "timestamp expires at" in said.err
    assert re.search(r"^timestamp\t.*\twarning$", said.out, re.MULTILINE)
    workshop.clock.at += timedelta(days=1)
    show_repository(workshop.desk.view())
    said = capsys.readouterr()
    assert "timestamp EXPIRED at" in said.err
    assert re.search(r"^timestamp\t.*\terror$", said.out, re.MULTILINE)
    assert re.search(r"^root\t.*\tok$", said.out, re.MULTILINE)


def test_a_damaged_repository_is_a_finding(workshop: Workshop) -> None:
    (workshop.repository / "metadata" / "timestamp.json").write_bytes(b"{")
    (finding,) = examine_updates(update_repository(workshop.home, None), workshop.clock.now())
    assert finding.level is Level.ERROR
    assert "update_repository_damaged" in finding.message
