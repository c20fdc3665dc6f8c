"""What may come into force, and who a certificate makes its holder."""

import datetime as dt
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from broker.adapters.brokers.embedded import BrokerError, BrokerErrorCode, BrokerTls, Zone
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.peer import Peer, identify
from broker.adapters.brokers.embedded.trust import Trust, load_trust
from tests.support.pki import DAY, SERVER_AUTH, Authority, Pair, Pki

NOW = dt.datetime.now(dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def _refused(tls: BrokerTls) -> BrokerErrorCode:
    with pytest.raises(BrokerError) as refusal:
        load_trust(tls, NOW)
    assert refusal.value.remedy
    return refusal.value.code


def _file(field: str, pki: Pki, name: str) -> dict[str, Any]:
    return {field: pki.directory / name}


@pytest.mark.parametrize("zone", list(Zone))
def test_the_usual_files_are_good(pki: Pki, zone: Zone) -> None:
    assert not load_trust(pki.tls(zone), NOW).revoked


@pytest.mark.parametrize(
    "field",
    ["certificate", "key", "client_anchors", "crl", "infrastructure_anchor", "infrastructure_crl"],
)
def test_every_file_is_needed(pki: Pki, field: str) -> None:
    tls = replace(pki.tls(Zone.CLAIM), **_file(field, pki, "nowhere.pem"))
    assert _refused(tls) is BrokerErrorCode.FILE_MISSING


def test_a_folder_is_no_file(pki: Pki) -> None:
    tls = replace(pki.tls(Zone.CLAIM), crl=pki.directory)
    assert _refused(tls) is BrokerErrorCode.FILE_UNREADABLE


@pytest.mark.parametrize("field", ["certificate", "client_anchors", "infrastructure_anchor"])
def test_a_certificate_must_be_one(pki: Pki, field: str) -> None:
    tls = replace(pki.tls(Zone.CLAIM), **_file(field, pki, "claim-crl.pem"))
    assert _refused(tls) is BrokerErrorCode.CERTIFICATE_INVALID


def test_the_key_must_fit(pki: Pki) -> None:
    tls = replace(pki.tls(Zone.CLAIM), key=pki.tls(Zone.FLEET).key)
    assert _refused(tls) is BrokerErrorCode.KEY_INVALID


def test_an_encrypted_key_needs_its_passphrase(pki: Pki) -> None:
    tls = pki.tls(Zone.CLAIM)
    key = serialization.load_pem_private_key(tls.key.read_bytes(), None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"open sesame"),
    )
    tls.key.write_bytes(locked)
    assert _refused(tls) is BrokerErrorCode.KEY_INVALID
    assert _refused(replace(tls, key_passphrase=b"wrong")) is BrokerErrorCode.KEY_INVALID
    load_trust(replace(tls, key_passphrase=b"open sesame"), NOW)


def _crl(pki: Pki, **options: object) -> bytes:
    return pki.claim.crl(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda pki: b"nonsense", BrokerErrorCode.CRL_CORRUPT),
        (lambda pki: _crl(pki)[:-60], BrokerErrorCode.CRL_CORRUPT),
        (lambda pki: _crl(pki).replace(b"MI", b"!!", 1), BrokerErrorCode.CRL_CORRUPT),
        (lambda pki: _crl(pki, valid=-HOUR), BrokerErrorCode.CRL_EXPIRED),
        (lambda pki: _crl(pki, made=HOUR), BrokerErrorCode.CRL_NOT_YET_VALID),
        (lambda pki: _crl(pki, signer=pki.operational), BrokerErrorCode.CRL_UNTRUSTED),
        (lambda pki: pki.operational.crl(), BrokerErrorCode.CRL_INCOMPLETE),
        (lambda pki: pki.infrastructure.crl(), BrokerErrorCode.CRL_INCOMPLETE),
    ],
)
def test_a_faulty_crl_is_refused(
    pki: Pki, make: Callable[[Pki], bytes], code: BrokerErrorCode
) -> None:
    pki.write_crl(Zone.CLAIM, make(pki))
    assert _refused(pki.tls(Zone.CLAIM)) is code


def test_the_crl_of_an_authority_that_is_not_trusted_counts_for_nothing(pki: Pki) -> None:
    pki.write_crl(Zone.CLAIM, _crl(pki) + pki.operational.crl())
    trust = load_trust(pki.tls(Zone.CLAIM), NOW)
    assert trust.is_revoked(pki.operational.certificate.subject.public_bytes(), 1)
    assert not trust.is_revoked(pki.claim.certificate.subject.public_bytes(), 1)


def test_a_damaged_crl_fails_in_one_way_only(pki: Pki) -> None:
    pki.revoke(pki.device(Zone.CLAIM, "dev-1"), Zone.CLAIM)
    tls, chance = pki.tls(Zone.CLAIM), random.Random(20)
    good = tls.crl.read_bytes()
    truth = load_trust(tls, NOW).revoked
    outcomes: set[object] = set()
    for _ in range(300):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] = chance.randrange(256)
        pki.write_crl(Zone.CLAIM, bytes(damaged))
        try:
            outcomes.add(load_trust(tls, NOW).revoked)
        except BrokerError as refusal:
            outcomes.add(refusal.code)
    faults = {code for code in BrokerErrorCode if code.value.startswith("broker_crl")}
    assert outcomes <= faults | {truth}, "only white space may be damaged and read"


def _identify(pki: Pki, pair: Pair, zone: Zone, trust: Trust | None = None) -> Peer:
    der = pair.certificate.public_bytes(serialization.Encoding.DER)
    return identify(der, trust or load_trust(pki.tls(zone), NOW), zone, NOW)


@pytest.mark.parametrize("zone", list(Zone))
def test_devices_and_the_service_are_told_apart(pki: Pki, zone: Zone) -> None:
    device = _identify(pki, pki.device(zone, "dev-1"), zone)
    assert (device.name, device.is_service) == ("dev-1", False)
    service = _identify(pki, pki.service(zone), zone)
    assert (service.name, service.is_service) == (f"muster-service-{zone}", True)


def _impostor(pki: Pki, issuer: Authority | None = None) -> Pair:
    return pki.pair("muster-service-claim", issuer or pki.claim)


@pytest.mark.parametrize(
    "make",
    [
        _impostor,
        lambda pki: _impostor(pki, pki.operational),
        # The infrastructure's name on a CA with another key.
        lambda pki: _impostor(pki, Authority("Test Infrastructure CA", 0)),
        lambda pki: pki.service(Zone.FLEET),
        lambda pki: pki.pair("dev-1", pki.infrastructure),
        lambda pki: pki.pair("localhost", pki.infrastructure, SERVER_AUTH),
        lambda pki: pki.device(Zone.CLAIM, "Muster-anything"),
        lambda pki: pki.device(Zone.CLAIM, "a/b"),
        lambda pki: pki.device(Zone.CLAIM, "a+"),
        lambda pki: pki.device(Zone.CLAIM, "a\nb"),
        lambda pki: pki.device(Zone.CLAIM, "ü"),
        lambda pki: pki.pair("dev-1", pki.claim, is_ca=True),
        lambda pki: pki.pair("dev-1", pki.claim, days=(-2, -1)),
        lambda pki: pki.pair("dev-1", pki.claim, days=(1, 2)),
    ],
)
def test_who_is_nobody(pki: Pki, make: Callable[[Pki], Pair]) -> None:
    with pytest.raises(Ended) as refusal:
        _identify(pki, make(pki), Zone.CLAIM)
    assert refusal.value.ending is Ending.CERTIFICATE_REFUSED


def test_the_revoked_are_refused_by_their_issuer_and_serial(pki: Pki) -> None:
    revoked, other = pki.device(Zone.CLAIM, "dev-1"), pki.device(Zone.CLAIM, "dev-1")
    pki.revoke(revoked, Zone.CLAIM)
    trust = load_trust(pki.tls(Zone.CLAIM), NOW)
    _identify(pki, other, Zone.CLAIM, trust)
    with pytest.raises(Ended):
        _identify(pki, revoked, Zone.CLAIM, trust)


def test_no_certificate_is_nobody(pki: Pki) -> None:
    trust = load_trust(pki.tls(Zone.CLAIM), NOW)
    for der in (None, b"", b"nonsense"):
        with pytest.raises(Ended):
            identify(der, trust, Zone.CLAIM, NOW)


def test_the_clock_is_given(pki: Pki) -> None:
    with pytest.raises(BrokerError):
        load_trust(pki.tls(Zone.CLAIM), NOW + 2 * DAY)
