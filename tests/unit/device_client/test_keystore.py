"""The keystore finds what is damaged, keeps what it can, and lets in one agent."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.protocol.names import SerialNumber
from device_client import keys, keystore
from device_client.errors import StateLocked, StateUnusable
from device_client.identity import Origin
from device_client.keys import KeyType
from tests.support import device_claims
from tests.support.device_claims import SERIAL, Service, assert_settled

FILES = ["key.pem", "chain.pem", "trust.pem", "identity.json"]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def removed(path: Path) -> None:
    path.unlink()


def made_binary(path: Path) -> None:
    path.write_bytes(b"\xff\xfe\x00" * 100)


DAMAGES = [cut_short, emptied, removed, made_binary]


def test_a_claim_from_nothing(tmp_path: Path) -> None:
    service = Service()
    identity = device_claims.claim(tmp_path / "state", service)
    assert_settled(tmp_path / "state", service, identity)
    assert identity.device_id == "lamp-A1"
    assert identity.serial == SERIAL
    for folder in ("", "credentials", "credentials/1"):
        assert (tmp_path / "state" / folder).stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES[1:])
def test_a_damaged_slot_is_claimed_again_with_its_key(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    damage(first.directory / file)
    again = device_claims.claim(tmp_path, service)
    assert_settled(tmp_path, service, again)
    assert again.certificate_sha256 == first.certificate_sha256


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_key_is_given_up(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    damage(first.key_file)
    again = device_claims.claim(tmp_path, service)
    assert again.key_sha256 != first.key_sha256
    service.seen = service.seen[1:]
    assert_settled(tmp_path, service, again)


def test_a_key_of_another_certificate_is_noticed(tmp_path: Path) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    first.key_file.write_text(keys.to_pem(keys.generate(KeyType.P256)))
    with keystore.opened(tmp_path) as store:
        assert store.current() is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_under_a_running_agent_keeps_the_key(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    with keystore.opened(tmp_path) as store:
        damage(first.chain_file)
        assert store.current() is None
        store.confirm(device_claims.enroll(store, service), device_claims.NOW)
    again = device_claims.claim(tmp_path, service)
    assert_settled(tmp_path, service, again)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_pending_key_is_replaced(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    with keystore.opened(tmp_path) as store:
        store.new_key(SERIAL, KeyType.P256)
        damage(tmp_path / "pending.json")
        pending = store.key_for_claim(SERIAL, KeyType.P256)
        assert store.key_for_claim(SERIAL, KeyType.P384).key.private_numbers() == (  # type: ignore[union-attr]
            pending.key.private_numbers()  # type: ignore[union-attr]
        )


def test_another_serial_number_gets_another_key(tmp_path: Path) -> None:
    with keystore.opened(tmp_path) as store:
        first = store.key_for_claim(SERIAL, KeyType.P256)
        second = store.key_for_claim(SerialNumber("B2"), KeyType.P256)
    assert keys.to_pem(first.key) != keys.to_pem(second.key)


def test_a_lost_link_is_restored(tmp_path: Path) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    (tmp_path / "current").unlink()
    assert device_claims.claim(tmp_path, service) == first


@pytest.mark.parametrize("target", ["credentials/9", "../../etc", "nowhere"])
def test_a_link_to_nowhere_is_restored(tmp_path: Path, target: str) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to(target)
    assert device_claims.claim(tmp_path, service) == first


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_member_does_not_need_the_enrollment(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    damage(tmp_path / "enrollment.json")
    with keystore.opened(tmp_path) as store:
        assert store.enrollment_if_readable() is None
        assert store.current() == first


def test_two_agents_do_not_share_a_state(tmp_path: Path) -> None:
    with keystore.opened(tmp_path):
        assert keystore.is_locked(tmp_path)
        with pytest.raises(StateLocked), keystore.opened(tmp_path):
            pass
    assert not keystore.is_locked(tmp_path)


def test_a_place_that_cannot_be_a_state_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateUnusable) as caught, keystore.opened(tmp_path / "file"):
        pass
    assert "--state" in caught.value.remedy


def test_what_is_remembered_is_private(tmp_path: Path) -> None:
    service = Service()
    with keystore.opened(tmp_path) as store:
        store.remember(service.enrollment())
        assert store.enrollment() == service.enrollment()
    assert (tmp_path / "enrollment.json").stat().st_mode & 0o777 == 0o600


def test_nothing_secret_is_shown(tmp_path: Path) -> None:
    service = Service()
    with keystore.opened(tmp_path) as store:
        assert "unused" not in repr(service.enrollment())
        assert "PRIVATE" not in repr(store.new_key(SERIAL, KeyType.P256))


def test_what_a_crash_left_in_between_is_cleared(tmp_path: Path) -> None:
    service = Service()
    first = device_claims.claim(tmp_path, service)
    shutil.copytree(first.directory, tmp_path / "credentials" / ".7.new")
    shutil.copytree(first.directory, tmp_path / "credentials" / "7")
    (tmp_path / ".pending.json.new").touch()
    assert_settled(tmp_path, service, device_claims.claim(tmp_path, service))


def test_a_successor_that_could_recover_is_the_one_in_use(tmp_path: Path) -> None:
    """The service saw it proven, and the one before it is of no use any more."""
    service = Service()
    device_claims.claim(tmp_path, service)
    with keystore.opened(tmp_path) as store:
        current = store.current()
        assert current is not None
        successor = device_claims.stage(store, service, current)
        recovered = device_claims.stage(store, service, successor, Origin.RECOVERY)
        assert store.current() == successor
        assert store.succession.successor() == recovered
        assert not current.directory.exists()


def test_the_key_that_is_asked_for_is_the_same_whichever_of_two_asks(tmp_path: Path) -> None:
    """Also after a restart: the service may have certified it in an answer that never came."""
    service = Service()
    device_claims.claim(tmp_path, service)
    with keystore.opened(tmp_path) as store:
        current = store.current()
        assert current is not None
        successor = device_claims.stage(store, service, current)
        kept = store.succession.key_for(successor, KeyType.P256, device_claims.NOW)
        assert keys.fingerprint(kept.key.public_key()) != successor.key_sha256
    with keystore.opened(tmp_path) as store:
        for one in (current, successor):
            again = store.succession.key_for(one, KeyType.P256, device_claims.NOW)
            assert keys.to_pem(again.key) == keys.to_pem(kept.key)
