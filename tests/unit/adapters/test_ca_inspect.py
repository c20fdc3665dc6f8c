"""What doctor is told about a home."""

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.crl import build_lasting_crl
from broker.adapters.ca.errors import AuthorityCode
from broker.adapters.ca.findings import Check, Finding
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.inspect import inspect_home
from broker.adapters.ca.key_files import key_pem
from broker.adapters.ca.loading import load_signer, read_certificates
from broker.core.findings import Level
from broker.protocol.zones import Zone
from tests.unit.adapters.ca_homes import NOW, make_home

DAY = timedelta(days=1)
SECRET = b"correct horse"


@pytest.fixture
def home(tmp_path: Path) -> MusterHome:
    return make_home(tmp_path)


def troubles(
    home: MusterHome, now: datetime = NOW, passphrase: bytes | None = None
) -> list[Finding]:
    found = [f for f in inspect_home(home, now, passphrase) if f.level is not Level.OK]
    assert all(finding.remedy for finding in found)
    return found


def brief(found: list[Finding]) -> set[tuple[Level, Check, str]]:
    return {(finding.level, finding.check, finding.path.name) for finding in found}


def test_a_new_home_is_fine(home: MusterHome) -> None:
    assert troubles(home) == []


def test_everything_is_looked_at(home: MusterHome) -> None:
    looked_at = {finding.path for finding in inspect_home(home, NOW)}
    assert looked_at == {path for path in home.path.rglob("*") if path.is_file()}


def test_it_changes_nothing(home: MusterHome) -> None:
    before = {path: path.stat() for path in home.path.rglob("*")}
    inspect_home(home, NOW)
    after = {path: path.stat() for path in home.path.rglob("*")}
    assert {path: stat.st_mtime_ns for path, stat in after.items()} == {
        path: stat.st_mtime_ns for path, stat in before.items()
    }


@pytest.mark.parametrize(
    ("after", "level"),
    [
        (timedelta(0), Level.OK),
        (2 * DAY, Level.OK),
        (3 * DAY, Level.WARNING),
        (7 * DAY, Level.ERROR),
    ],
)
def test_a_crl_that_nobody_signs_anew(home: MusterHome, after: timedelta, level: Level) -> None:
    (finding,) = [
        finding
        for finding in inspect_home(home, NOW + after)
        if finding.check is Check.CRL_EXPIRY and "operational" in finding.message
    ]
    assert finding.level is level
    assert f"{NOW + 7 * DAY:%Y-%m-%d %H:%M} UTC" in finding.message


def test_the_certificates_of_brokers_and_service_near_their_end(home: MusterHome) -> None:
    names = {path.name for path in home.tls.glob("*.crt")}
    for days, level in ((701, Level.WARNING), (730, Level.ERROR)):
        found = troubles(home, NOW + days * DAY)
        tls = {finding for finding in found if finding.path.parent == home.tls}
        assert {finding.path.name for finding in tls} == names
        assert {(finding.level, finding.check) for finding in tls} == {(level, Check.EXPIRY)}


def test_a_clock_that_is_far_behind(home: MusterHome) -> None:
    found = troubles(home, NOW - DAY)
    assert all("clock" in finding.remedy for finding in found)
    assert {finding.check for finding in found} == {Check.EXPIRY, Check.CRL_EXPIRY}


@pytest.mark.parametrize("name", ["root", "claim", "infrastructure"])
def test_a_key_may_be_kept_elsewhere(home: MusterHome, name: str) -> None:
    (home.ca / f"{name}.key").unlink()
    assert troubles(home) == []


@pytest.mark.parametrize("name", ["ca/operational.key", "tls/fleet-broker.key"])
def test_a_key_that_is_needed_each_day(home: MusterHome, name: str) -> None:
    (home.path / name).unlink()
    (finding,) = troubles(home)
    assert (finding.level, finding.code) == (Level.ERROR, AuthorityCode.FILE_MISSING)
    assert finding.path == home.path / name


def test_a_key_that_others_may_read(home: MusterHome) -> None:
    home.root.key.chmod(0o640)
    (finding,) = troubles(home)
    assert finding.code is AuthorityCode.KEY_EXPOSED
    assert "chmod 600" in finding.remedy


def test_locked_keys_are_compared_with_the_passphrase_only(tmp_path: Path) -> None:
    home = make_home(tmp_path, passphrase=SECRET)
    other = key_pem(load_signer(home.claim, SECRET).key, SECRET)
    home.root.key.write_bytes(other)
    assert troubles(home) == []
    (finding,) = troubles(home, passphrase=SECRET)
    assert finding.code is AuthorityCode.KEY_MISMATCH
    codes = {finding.code for finding in troubles(home, passphrase=b"guess")}
    assert codes == {AuthorityCode.PASSPHRASE_WRONG}


def test_a_certificate_of_another_home(home: MusterHome, tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    other = make_home(tmp_path / "second")
    for end in ("certificate", "key"):
        mine: Path = getattr(home.broker(Zone.CLAIM), end)
        mine.write_bytes(getattr(other.broker(Zone.CLAIM), end).read_bytes())
    assert brief(troubles(home)) == {(Level.ERROR, Check.CHAIN, "claim-broker.crt")}


def _drop_an_anchor(home: MusterHome) -> None:
    path = home.client_anchors(Zone.FLEET)
    path.write_bytes(home.root.certificate.read_bytes())


def _empty_an_anchor_file(home: MusterHome) -> None:
    home.server_anchors.write_bytes(b"")


def _drop_a_crl(home: MusterHome) -> None:
    home.crl_file(Zone.FLEET).write_bytes(home.infrastructure_crl.read_bytes())


def _damage_a_crl(home: MusterHome) -> None:
    path = home.crl_file(Zone.CLAIM)
    path.write_bytes(path.read_bytes()[:200])


def _damage_a_certificate(home: MusterHome) -> None:
    home.service(Zone.CLAIM).certificate.write_bytes(b"nothing")


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (_drop_an_anchor, (Level.ERROR, Check.ANCHORS, "fleet-clients.pem")),
        (_empty_an_anchor_file, (Level.ERROR, Check.ANCHORS, "servers.pem")),
        (_drop_a_crl, (Level.ERROR, Check.CRL_SIGNATURE, "fleet.pem")),
        (_damage_a_crl, (Level.ERROR, Check.FILE, "claim.pem")),
        (_damage_a_certificate, (Level.ERROR, Check.FILE, "service-claim.crt")),
    ],
)
def test_a_damaged_file(
    home: MusterHome, damage: Callable[[MusterHome], None], expected: tuple[Level, Check, str]
) -> None:
    damage(home)
    assert brief(troubles(home)) == {expected}


def test_an_anchor_too_many(home: MusterHome) -> None:
    path = home.client_anchors(Zone.CLAIM)
    path.write_bytes(path.read_bytes() + home.root.certificate.read_bytes())
    assert brief(troubles(home)) == {(Level.WARNING, Check.ANCHORS, "claim-clients.pem")}


def test_a_crl_that_somebody_else_signed(home: MusterHome) -> None:
    signer = load_signer(home.claim, None)
    forged = type(signer)(signer.certificate, load_signer(home.root, None).key)
    home.crl_file(Zone.CLAIM).write_bytes(build_lasting_crl(forged, (), 1, NOW))
    assert brief(troubles(home)) == {(Level.ERROR, Check.CRL_SIGNATURE, "claim.pem")}


def test_an_empty_folder_is_all_trouble(tmp_path: Path) -> None:
    found = inspect_home(MusterHome(tmp_path), NOW)
    assert {finding.level for finding in found} == {Level.ERROR}
    assert {finding.code for finding in found} == {AuthorityCode.FILE_MISSING}


def test_order_of_anchors_does_not_matter(home: MusterHome) -> None:
    path = home.client_anchors(Zone.FLEET)
    anchors = reversed(read_certificates(path))
    path.write_bytes(b"".join(anchor.public_bytes(Encoding.PEM) for anchor in anchors))
    assert troubles(home) == []
