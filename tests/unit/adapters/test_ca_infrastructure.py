"""Renewing the certificates of brokers and service."""

from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.home import MusterHome
from broker.adapters.ca.infrastructure import renew_infrastructure
from broker.adapters.ca.inspect import inspect_home
from broker.core.certificate_profile import PROFILES, Profile
from broker.core.findings import Level
from broker.protocol.zones import Zone
from tests.unit.adapters.ca_homes import NOW, certificate_in, make_home, openssl_verify

LATER = NOW + timedelta(days=700)


def contents(home: MusterHome) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.path.rglob("*") if path.is_file()}


def dns_names(path: Path) -> list[str]:
    names = certificate_in(path).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    return names.value.get_values_for_type(x509.DNSName)


def test_all_last_as_long_again(tmp_path: Path) -> None:
    home = make_home(tmp_path, "old.example.org", passphrase=b"correct horse")
    before = contents(home)
    renewed = renew_infrastructure(home, hosts=[], passphrase=b"correct horse", now=LATER)
    after = contents(home)
    assert set(renewed) == {path for path in after if before.get(path) != after[path]}
    assert set(after) == set(before)
    assert len(renewed) == 4
    for path in renewed:
        end = certificate_in(path).not_valid_after_utc
        assert end == LATER + PROFILES[Profile.BROKER_SERVER].lifetime
        assert path.stat().st_mode & 0o777 == 0o644
    own = [finding for finding in inspect_home(home, LATER) if finding.path.parent == home.tls]
    assert {finding.level for finding in own} == {Level.OK}


@pytest.mark.parametrize("zone", Zone)
def test_a_broker_keeps_its_names_and_gets_new_ones(tmp_path: Path, zone: Zone) -> None:
    home = make_home(tmp_path, "old.example.org", "192.0.2.7")
    renew_infrastructure(home, hosts=["new.example.org"], passphrase=None, now=LATER)
    path = home.broker(zone).certificate
    assert {"old.example.org", "new.example.org", "localhost"} <= set(dns_names(path))
    for option in (("-verify_hostname", "new.example.org"), ("-verify_ip", "192.0.2.7")):
        options = ("-purpose", "sslserver", *option)
        result = openssl_verify(path, home.server_anchors, *options, at=LATER)
        assert result.returncode == 0, result.stderr


def test_a_missing_key_changes_nothing(tmp_path: Path) -> None:
    home = make_home(tmp_path)
    home.service(Zone.FLEET).key.unlink()
    before = contents(home)
    with pytest.raises(AuthorityError) as caught:
        renew_infrastructure(home, hosts=[], passphrase=None, now=LATER)
    assert caught.value.code is AuthorityCode.FILE_MISSING
    assert contents(home) == before
