"""Making a home."""

import os
import stat
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.init import create_home
from broker.adapters.ca.loading import read_certificates, read_crls
from broker.core.certificate_profile import BACKDATING, OPERATIONAL_CRL_LIFETIME
from broker.protocol.zones import Zone
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home

LAYOUT = {
    ".": 0o755,
    "ca": 0o700,
    **{f"ca/{name}.crt": 0o644 for name in ("root", "operational", "claim", "infrastructure")},
    **{f"ca/{name}.key": 0o600 for name in ("root", "operational", "claim", "infrastructure")},
    "tls": 0o755,
    **{f"tls/{zone}-broker.crt": 0o644 for zone in Zone},
    **{f"tls/{zone}-broker.key": 0o600 for zone in Zone},
    **{f"tls/service-{zone}.crt": 0o644 for zone in Zone},
    **{f"tls/service-{zone}.key": 0o600 for zone in Zone},
    "trust": 0o755,
    "trust/claim-clients.pem": 0o644,
    "trust/fleet-clients.pem": 0o644,
    "trust/servers.pem": 0o644,
    "crl": 0o755,
    "crl/claim.pem": 0o644,
    "crl/fleet.pem": 0o644,
    "crl/infrastructure.pem": 0o644,
    "run": 0o700,
}


def layout_of(path: Path) -> dict[str, int]:
    return {
        str(entry.relative_to(path)): stat.S_IMODE(entry.stat().st_mode)
        for entry in (path, *path.rglob("*"))
    }


def refusal(home: MusterHome, *hosts: str, passphrase: bytes | None = None) -> AuthorityError:
    with pytest.raises(AuthorityError) as caught:
        create_home(home, hosts=hosts, passphrase=passphrase, now=NOW)
    assert caught.value.remedy
    return caught.value


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> MusterHome:
    return make_home(tmp_path_factory.mktemp("init"), "mqtt.example.org", "192.0.2.7")


@pytest.fixture(params=[0o000, 0o077], ids=["wide", "narrow"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    old = os.umask(request.param)
    yield
    os.umask(old)


@pytest.mark.usefixtures("umask")
def test_the_whole_tree_whatever_the_umask(tmp_path: Path) -> None:
    assert layout_of(make_home(tmp_path).path) == LAYOUT


def test_nothing_is_left_beside_it(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    assert list(tmp_path.iterdir()) == [home.path]


def test_the_paths_say_where_things_are(home: MusterHome) -> None:
    assert home.broker(Zone.CLAIM).certificate == home.path / "tls/claim-broker.crt"
    assert home.service(Zone.FLEET).key == home.path / "tls/service-fleet.key"
    assert home.client_anchors(Zone.FLEET) == home.path / "trust/fleet-clients.pem"
    assert home.crl_file(Zone.CLAIM) == home.path / "crl/claim.pem"
    assert home.settings == home.path / "muster.toml"
    assert home.registry == home.path / "registry.db"
    assert home.run.is_dir()


def test_who_trusts_whom(home: MusterHome) -> None:
    root, operational, claim, infrastructure = (
        certificate_in(pair.certificate)
        for pair in (home.root, home.operational, home.claim, home.infrastructure)
    )
    assert read_certificates(home.client_anchors(Zone.CLAIM)) == [claim]
    assert read_certificates(home.client_anchors(Zone.FLEET)) == [root, operational]
    assert read_certificates(home.server_anchors) == [infrastructure]


@pytest.mark.parametrize("zone", Zone)
def test_a_broker_carries_the_names_it_is_reached_by(home: MusterHome, zone: Zone) -> None:
    certificate = certificate_in(home.broker(zone).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"mqtt.example.org", "localhost"} <= set(names.get_values_for_type(x509.DNSName))
    addresses = set(names.get_values_for_type(x509.IPAddress))
    assert addresses == {ip_address(text) for text in ("192.0.2.7", "127.0.0.1", "::1")}


@pytest.mark.parametrize("zone", Zone)
def test_the_service_has_its_reserved_name(home: MusterHome, zone: Zone) -> None:
    certificate = certificate_in(home.service(zone).certificate)
    assert certificate.subject.rfc4514_string() == f"CN=muster-service-{zone}"


def test_the_machines_name_is_left_out_where_it_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "my_box")
    certificate = certificate_in(make_home(tmp_path).broker(Zone.CLAIM).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["localhost"]


def test_the_first_crls_are_empty_and_in_force(home: MusterHome) -> None:
    for path, issuer in (
        (home.crl_file(Zone.CLAIM), home.claim),
        (home.crl_file(Zone.FLEET), home.operational),
        (home.infrastructure_crl, home.infrastructure),
    ):
        (own,) = read_crls(path)
        assert own.issuer == certificate_in(issuer.certificate).subject
        assert not list(own)
        assert own.last_update_utc == NOW - BACKDATING


def test_only_the_crl_that_is_signed_daily_is_short(home: MusterHome) -> None:
    (claim,) = read_crls(home.crl_file(Zone.CLAIM))
    (operational,) = read_crls(home.crl_file(Zone.FLEET))
    (infrastructure,) = read_crls(home.infrastructure_crl)
    assert operational.next_update_utc == NOW + OPERATIONAL_CRL_LIFETIME
    for crl, pair in ((claim, home.claim), (infrastructure, home.infrastructure)):
        assert crl.next_update_utc == certificate_in(pair.certificate).not_valid_after_utc


def test_no_two_authorities_of_any_home_share_a_name(home: MusterHome, tmp_path: Path) -> None:
    names = [
        certificate_in(pair.certificate).subject.rfc4514_string()
        for one in (home, make_home(tmp_path))
        for pair in (one.root, one.operational, one.claim, one.infrastructure)
    ]
    assert len(set(names)) == len(names)


def test_a_passphrase_locks_the_authorities_and_nothing_else(tmp_path: Path) -> None:
    home = make_home(tmp_path, passphrase=b"correct horse")
    for path in home.ca.glob("*.key"):
        with pytest.raises(TypeError):
            load_pem_private_key(path.read_bytes(), None)
        load_pem_private_key(path.read_bytes(), b"correct horse")
    for path in home.tls.glob("*.key"):
        load_pem_private_key(path.read_bytes(), None)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    assert layout_of(make_home(tmp_path).path) == LAYOUT


def test_a_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "home").symlink_to(tmp_path / "far")
    make_home(tmp_path)
    assert layout_of(tmp_path / "far") == LAYOUT


def test_a_home_is_never_overwritten(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    before = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    assert refusal(home).code is AuthorityCode.HOME_EXISTS
    after = {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}
    assert after == before
    assert list(tmp_path.iterdir()) == [home.path]


def test_a_home_that_appears_meanwhile_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "home"
    rename = os.rename

    def outrun(source: Path, target: Path) -> None:
        place.mkdir()
        (place / "theirs").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", outrun)
    assert refusal(MusterHome(place)).code is AuthorityCode.HOME_EXISTS
    assert [path.name for path in tmp_path.rglob("*")] == ["home", "theirs"]


def test_a_file_in_its_place_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("mine")
    assert refusal(MusterHome(tmp_path / "home")).code is AuthorityCode.HOME_EXISTS
    assert (tmp_path / "home").read_text() == "mine"


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    home = MusterHome(tmp_path / "nowhere" / "home")
    assert refusal(home).code is AuthorityCode.HOME_UNWRITABLE


@pytest.mark.parametrize(
    "host",
    [
        *("", " ", "mqtt://a", "a:1883", "a_b", "-a", "a-", "a..b", "*.a.org", "bücher.example"),
        *("192.0.2.256", "1.2.3", "fe80::1%eth0", "a" * 64, ".".join(["a" * 63] * 4), "a\n"),
    ],
)
def test_a_host_that_is_none(tmp_path: Path, host: str) -> None:
    error = refusal(MusterHome(tmp_path / "home"), host)
    assert error.code is AuthorityCode.HOST_INVALID
    assert list(tmp_path.iterdir()) == []


def test_a_refused_passphrase_leaves_nothing(tmp_path: Path) -> None:
    error = refusal(MusterHome(tmp_path / "home"), passphrase=b"")
    assert error.code is AuthorityCode.PASSPHRASE_EMPTY
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    error = refusal(MusterHome(tmp_path / "home"))
    assert error.code is AuthorityCode.FILE_UNWRITABLE
    assert "No space left" in error.message
    assert list(tmp_path.iterdir()) == []
