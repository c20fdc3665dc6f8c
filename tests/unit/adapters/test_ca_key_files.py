"""Private keys in files."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.files import write_secret
from broker.adapters.ca.key_files import generate_key, key_pem, read_key, write_key

PASSPHRASE = "größer als acht".encode()


@pytest.fixture
def wide_umask() -> Iterator[None]:
    old = os.umask(0)
    yield
    os.umask(old)


def refusal(path: Path, passphrase: bytes | None = None) -> AuthorityError:
    with pytest.raises(AuthorityError) as caught:
        read_key(path, passphrase)
    assert caught.value.remedy
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("passphrase", [None, PASSPHRASE])
def test_a_key_comes_back(tmp_path: Path, passphrase: bytes | None) -> None:
    key, path = generate_key(), tmp_path / "a.key"
    write_key(path, key, passphrase)
    assert read_key(path, passphrase).public_key() == key.public_key()


@pytest.mark.usefixtures("wide_umask")
def test_only_its_owner_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, modes = tmp_path / "a.key", []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        modes.append(path.stat().st_mode & 0o777)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    write_key(path, generate_key())
    assert set(modes) == {0o600}


def test_it_is_never_open_to_others_even_when_it_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    real = os.open

    def watch(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            asked.append((flags & os.O_EXCL != 0, mode))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", watch)
    write_key(tmp_path / "a.key", generate_key())
    assert asked == [(True, 0o600)]


def test_a_file_that_exists_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.write_bytes(b"precious")
    with pytest.raises(AuthorityError) as caught:
        write_key(path, generate_key())
    assert caught.value.code is AuthorityCode.FILE_EXISTS
    assert path.read_bytes() == b"precious"


def test_what_could_not_be_written_whole_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "a.key"
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(AuthorityError) as caught:
        write_key(path, generate_key())
    assert caught.value.code is AuthorityCode.FILE_UNWRITABLE
    assert not path.exists()


def test_openssl_reads_an_encrypted_key(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key(), PASSPHRASE)
    command = ["openssl", "pkey", "-in", str(path), "-passin", "stdin", "-noout"]
    good = subprocess.run(command, input=PASSPHRASE, capture_output=True, timeout=60)
    bad = subprocess.run(command, input=b"something else", capture_output=True, timeout=60)
    assert good.returncode == 0, good.stderr
    assert bad.returncode != 0


def test_an_encrypted_key_is_slow_to_guess_at(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key(), PASSPHRASE)
    shown = subprocess.run(
        ["openssl", "asn1parse", "-in", path], capture_output=True, text=True, timeout=30
    ).stdout
    assert ":scrypt" in shown
    assert ":aes-256-cbc" in shown
    assert "INTEGER           :4000" in shown


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65_537, 3072),
    ],
    ids=["p384", "ed25519", "rsa3072"],
)
def test_every_allowed_kind_of_key_can_be_encrypted(
    key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey,
) -> None:
    loaded = load_pem_private_key(key_pem(key, PASSPHRASE), PASSPHRASE)
    assert loaded.public_key() == key.public_key()


def test_two_encryptions_of_a_key_share_nothing() -> None:
    key = generate_key()
    first, second = (key_pem(key, PASSPHRASE).splitlines() for _ in range(2))
    assert first[3:-1] != second[3:-1]


def test_an_empty_passphrase_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    with pytest.raises(AuthorityError) as caught:
        write_key(path, generate_key(), b"")
    assert caught.value.code is AuthorityCode.PASSPHRASE_EMPTY
    assert not path.exists()


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.key").code is AuthorityCode.FILE_MISSING


def test_a_folder_in_its_place(tmp_path: Path) -> None:
    assert refusal(tmp_path).code is AuthorityCode.FILE_UNREADABLE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_key_that_others_may_touch(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key())
    path.chmod(mode)
    error = refusal(path)
    assert error.code is AuthorityCode.KEY_EXPOSED
    assert f"chmod 600 {path}" in error.remedy


@pytest.mark.parametrize("given", [None, b""])
def test_a_missing_passphrase(tmp_path: Path, given: bytes | None) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key(), PASSPHRASE)
    assert refusal(path, given).code is AuthorityCode.PASSPHRASE_MISSING


def test_a_wrong_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key(), PASSPHRASE)
    error = refusal(path, b"guess")
    assert error.code is AuthorityCode.PASSPHRASE_WRONG
    assert "guess" not in error.message + error.remedy


def test_a_needless_passphrase(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_key(path, generate_key())
    assert refusal(path, PASSPHRASE).code is AuthorityCode.PASSPHRASE_NEEDLESS


@pytest.mark.parametrize("content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.key"
    write_secret(path, content)
    assert refusal(path).code is AuthorityCode.FILE_MALFORMED


@pytest.mark.parametrize(
    "key",
    [x25519.X25519PrivateKey.generate(), rsa.generate_private_key(65_537, 2048)],
    ids=["x25519", "rsa2048"],
)
def test_a_kind_of_key_that_is_not_used(
    tmp_path: Path, key: x25519.X25519PrivateKey | rsa.RSAPrivateKey
) -> None:
    path = tmp_path / "a.key"
    write_secret(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert refusal(path).code is AuthorityCode.KEY_NOT_ALLOWED
