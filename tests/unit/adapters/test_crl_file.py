"""The CRL file is only ever a good one."""

import os
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.adapters.brokers.crl_file import WatchedCrlFile, check_file, swap
from broker.adapters.brokers.errors import BrokerControlError

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = ec.generate_private_key(ec.SECP256R1())


def crl(issuer: str = "A", since: datetime = NOW - DAY, until: datetime = NOW + DAY) -> bytes:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)])
    builder = x509.CertificateRevocationListBuilder(name, since, until)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_a_good_file_is_put_in_place_readable_by_the_broker(tmp_path: Path) -> None:
    path = tmp_path / "fleet.pem"
    for pem in (crl(), crl("A") + crl("B")):
        swap(path, pem, NOW)
        assert path.read_bytes() == pem
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        check_file(path, NOW)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"\n",
        b"not a CRL",
        crl()[:-30],
        crl() + crl("B")[:100],
        crl()[30:],
        crl() + b"tail",
        crl().replace(b"\nM", b"\nA", 1),
        crl().replace(b"X509 CRL", b"CERTIFICATE"),
        crl("A") + crl("A"),
        crl("A") + crl("B", until=NOW),
        crl(since=NOW + timedelta(seconds=1)),
        crl(until=NOW - timedelta(seconds=1)),
    ],
)
def test_a_faulty_file_leaves_the_old_in_place(tmp_path: Path, pem: bytes) -> None:
    path = tmp_path / "fleet.pem"
    old = crl("old")
    path.write_bytes(old)
    with pytest.raises(BrokerControlError) as refused:
        swap(path, pem, NOW)
    assert refused.value.code == "crl_invalid"
    assert refused.value.remedy
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_expired_since_is_not_good_any_more(tmp_path: Path) -> None:
    path = tmp_path / "fleet.pem"
    swap(path, crl(), NOW)
    with pytest.raises(BrokerControlError) as refused:
        check_file(path, NOW + DAY)
    assert refused.value.code == "crl_invalid"


def test_a_folder_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(BrokerControlError) as refused:
        swap(tmp_path / "none" / "fleet.pem", crl(), NOW)
    assert refused.value.code == "crl_unwritable"
    with pytest.raises(BrokerControlError) as missing:
        check_file(tmp_path / "fleet.pem", NOW)
    assert missing.value.code == "crl_unreadable"


async def test_a_watched_file_is_intact_as_long_as_nobody_changed_it(tmp_path: Path) -> None:
    path = tmp_path / "fleet.pem"
    watched = WatchedCrlFile(path)
    assert not await watched.is_intact()
    await watched.swap(crl(), NOW)
    for _ in range(3):
        assert await watched.is_intact()
    path.write_bytes(path.read_bytes())
    assert await watched.is_intact()
    path.write_bytes(crl("B"))
    assert not await watched.is_intact()
    assert not await watched.is_intact()
    path.unlink()
    assert not await watched.is_intact()
    await watched.swap(crl("C"), NOW)
    assert await watched.is_intact()


async def test_a_watched_file_whose_time_was_set_back_is_looked_at_all_the_same(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fleet.pem"
    watched = WatchedCrlFile(path)
    await watched.swap(crl(), NOW)
    assert await watched.is_intact()
    before = path.stat()
    changed = bytearray(path.read_bytes())
    changed[100] ^= 1
    path.write_bytes(bytes(changed))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not await watched.is_intact()
