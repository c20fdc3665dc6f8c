"""Which CRLs Mosquitto's supervisor lets it read."""

import subprocess
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import pytest
from crl_guard import Guard
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, build_anchor
from broker.adapters.ca.crl import build_crl
from broker.adapters.ca.key_files import SigningKey
from broker.core.certificate_profile import Profile, Validity
from broker.core.records import RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.names import CertificateSerial

NOW: Final = datetime.now(UTC)
DAY: Final = timedelta(days=1)
KEYS: Final[dict[str, SigningKey]] = {
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "rsa": rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def authority(key: SigningKey = KEYS["ec"], title: str = "A") -> Signer:
    return build_anchor(Profile.OPERATIONAL_CA, title, key, Validity(NOW - DAY, NOW + 900 * DAY))


def crl(
    issuer: Signer,
    number: int = 5,
    at: datetime = NOW,
    until: datetime = NOW + 7 * DAY,
    size: int = 3,
) -> bytes:
    revoked = [
        Revocation(CertificateSerial(f"{each:x}"), NOW, RevocationReason.OPERATOR)
        for each in range(1, size + 1)
    ]
    return build_crl(issuer, revoked, number, at, until)


class Place:
    """A configuration with one CRL file, and its guard."""

    def __init__(self, folder: Path, *anchors: Signer) -> None:
        self.crl, self.anchors, self.kept = folder / "c.pem", folder / "a.pem", folder / "kept"
        self.config = folder / "m.conf"
        self.config.write_text(
            f"listener 1\ncafile {self.anchors}\ncrlfile {self.crl}\n# crlfile /of/a/comment\n"
        )
        self.trust(*anchors)
        self.guard = Guard(self.config, self.kept)

    def trust(self, *anchors: Signer) -> None:
        pem = b"".join(each.certificate.public_bytes(Encoding.PEM) for each in anchors)
        self.anchors.write_bytes(pem)

    def offers(self, *crls: bytes) -> list[str]:
        """What the guard says of them."""
        self.crl.write_bytes(b"".join(crls))
        return self.guard.refresh()

    def numbers(self) -> list[int]:
        """Those of the CRLs that Mosquitto reads."""
        (path,) = (
            line.split()[1]
            for line in self.guard.config.read_text().splitlines()
            if line.startswith("crlfile")
        )
        blocks = Path(path).read_bytes().split(b"-----BEGIN")[1:]
        found = [x509.load_pem_x509_crl(b"-----BEGIN" + block) for block in blocks]
        return [
            each.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
            for each in found
        ]


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("size", [0, 3, 3000])
def test_what_its_authority_signed_is_read_as_it_is(tmp_path: Path, kind: str, size: int) -> None:
    issuer = authority(KEYS[kind])
    place = Place(tmp_path, issuer)
    pem = crl(issuer, size=size)
    assert place.offers(pem) == []
    assert place.guard.is_ready()
    (copy,) = place.kept.glob("*.pem")
    assert x509.load_pem_x509_crl(copy.read_bytes()) == x509.load_pem_x509_crl(pem)


def test_openssl_reads_the_copy(tmp_path: Path) -> None:
    place = Place(tmp_path, authority())
    place.offers(crl(authority()))
    (copy,) = place.kept.glob("*.pem")
    done = subprocess.run(["openssl", "crl", "-in", copy, "-noout"], capture_output=True)
    assert done.returncode == 0, done.stderr


STRANGER: Final = authority(ec.generate_private_key(ec.SECP256R1()))
NAMESAKE: Final = Signer(authority().certificate, ec.generate_private_key(ec.SECP256R1()))
GOOD: Final = crl(authority(), number=6)


def tampered() -> bytes:
    """It revokes another serial number than the authority wanted."""
    der = x509.load_pem_x509_crl(GOOD).public_bytes(Encoding.DER)
    changed = der.replace(b"\x02\x01\x02\x17", b"\x02\x01\x09\x17", 1)
    assert changed != der
    return x509.load_der_x509_crl(changed).public_bytes(Encoding.PEM)


@pytest.mark.parametrize(
    ("pem", "why"),
    [
        (b"", "whole PEM"),
        (b"nothing", "whole PEM"),
        (GOOD[:-30], "whole PEM"),
        (GOOD + b"tail", "whole PEM"),
        (GOOD.replace(b"\nM", b"\n?", 1), "base64"),
        (GOOD.replace(b"\nMI", b"\nAA", 1), "parsed"),
        (tampered(), "signature"),
        (GOOD + GOOD, "two CRLs"),
        (crl(STRANGER), "authority in the anchors"),
        (crl(NAMESAKE), "signature"),
        (crl(authority(), 6, NOW - 30 * DAY, NOW - DAY), "expired"),
        (crl(authority(), 6, NOW + DAY), "isn't valid before"),
        (crl(authority(), 4, NOW - timedelta(hours=1)), "older"),
    ],
)
def test_what_may_not_be_relied_on_leaves_the_last(tmp_path: Path, pem: bytes, why: str) -> None:
    place = Place(tmp_path, authority())
    assert place.offers(crl(authority())) == []
    (said,) = place.offers(pem)
    assert str(place.crl) in said
    assert why in said
    assert place.numbers() == [5]
    # A supervisor that starts later knows what this one has read.
    place.guard = Guard(place.config, place.kept)
    (said,) = place.offers(pem)
    assert why in said
    assert place.guard.is_ready()
    assert place.numbers() == [5]


def test_a_missing_file_leaves_the_last(tmp_path: Path) -> None:
    place = Place(tmp_path, authority())
    place.offers(crl(authority()))
    place.crl.unlink()
    assert place.guard.refresh() == [f"{place.crl}: No such file or directory"]
    assert place.numbers() == [5]


def test_who_would_signal_mosquitto_itself_finds_no_pid_file(tmp_path: Path) -> None:
    """It would read the same copies again, and the one who signalled believe in a new CRL."""
    place = Place(tmp_path, authority())
    place.config.write_text("pid_file /run/m.pid\n" + place.config.read_text())
    assert place.offers(crl(authority())) == []
    assert "pid_file" not in place.guard.config.read_text()


def test_with_nothing_good_yet_mosquitto_may_not_start(tmp_path: Path) -> None:
    place = Place(tmp_path, authority())
    assert place.offers(b"") != []
    assert not place.guard.is_ready()
    assert place.offers(crl(authority())) == []
    assert place.guard.is_ready()


def test_a_registry_from_a_backup_and_a_clock_that_was_set_back_are_no_obstacle(
    tmp_path: Path,
) -> None:
    place = Place(tmp_path, authority())
    place.offers(crl(authority()))
    assert place.offers(crl(authority(), 2, NOW + timedelta(seconds=1))) == []
    assert place.offers(crl(authority(), 3, NOW - timedelta(minutes=2))) == []
    assert place.numbers() == [3]


def test_while_authorities_change_each_that_counts_must_have_its_crl(tmp_path: Path) -> None:
    old, new = authority(title="old"), authority(title="new")
    place = Place(tmp_path, old)
    assert place.offers(crl(old, 1)) == []
    assert place.offers(crl(old, 2), crl(new, 1)) == []  # who comes, before it is an anchor
    assert place.numbers() == [2]
    place.trust(old, new)
    assert place.offers(crl(old, 3), crl(new, 2)) == []
    assert place.numbers() == [3, 2]
    (said,) = place.offers(crl(old, 4))
    assert "missing" in said
    place.trust(new)
    assert place.offers(crl(new, 5)) == []
    assert place.numbers() == [5]


def test_a_large_one_is_judged_within_a_fraction_of_a_second(tmp_path: Path) -> None:
    place = Place(tmp_path, authority())
    pem = crl(authority(), size=50_000)
    began = time.process_time()
    assert place.offers(pem) == []
    assert time.process_time() - began < 1.0
