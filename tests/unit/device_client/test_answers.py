"""What is wrong in an answer is found before anything is stored."""

import dataclasses
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from broker.protocol.messages import EnrollAccepted, TrustBundle
from device_client import keys
from device_client.answers import check_answer
from device_client.errors import AnswerInvalid
from device_client.keys import KeyType
from tests.support.device_claims import ENDPOINT, NOW, TestAuthority

KEY = keys.generate(KeyType.P256)
SHA256 = keys.fingerprint(KEY.public_key())
AUTHORITY = TestAuthority()
TRUST = TrustBundle(version=2, anchors=AUTHORITY.pem)
DAY = timedelta(days=1)


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def answer(leaf: x509.Certificate, **changes: object) -> EnrollAccepted:
    whole = EnrollAccepted(
        request_id="1",
        device_id="lamp-1",
        certificate_chain=pem(leaf) + AUTHORITY.pem,
        not_after=NOW + DAY,
        confirm_by=None,
        fleet=ENDPOINT,
        trust_bundle=TRUST,
    )
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


GOOD = AUTHORITY.issue("lamp-1", KEY.public_key())


def refused(wrong: EnrollAccepted, why: str) -> None:
    with pytest.raises(AnswerInvalid, match=why) as caught:
        check_answer(wrong, SHA256, TRUST, NOW)
    assert caught.value.remedy


def test_a_good_answer() -> None:
    grant = check_answer(answer(GOOD), SHA256, TRUST, NOW)
    assert grant.device_id == "lamp-1"
    assert grant.fleet == ENDPOINT
    assert grant.trust_bundle == TRUST
    assert len(grant.certificate_sha256) == 64


def test_a_certificate_about_another_key() -> None:
    other = keys.generate(KeyType.P256).public_key()
    refused(answer(AUTHORITY.issue("lamp-1", other)), "another key")


def test_a_certificate_for_another_name() -> None:
    refused(answer(AUTHORITY.issue("lamp-2", KEY.public_key())), "name")


@pytest.mark.parametrize("name", ["", "a/b", "lamp 1", "muster-service-fleet", "x" * 65, "a\n"])
def test_a_device_id_that_is_no_name(name: str) -> None:
    refused(answer(GOOD, device_id=name), "valid name")


def test_a_clock_that_is_behind() -> None:
    """The certificate proves it; there is nothing wrong with the answer."""
    leaf = AUTHORITY.issue("lamp-1", KEY.public_key(), valid=(30 * DAY, 60 * DAY))
    assert check_answer(answer(leaf), SHA256, TRUST, NOW).not_before == NOW + 30 * DAY


def test_a_certificate_that_has_expired() -> None:
    refused(answer(AUTHORITY.issue("lamp-1", KEY.public_key(), valid=(-2 * DAY, -DAY))), "expired")


def test_an_authority_in_the_place_of_a_device() -> None:
    refused(answer(AUTHORITY.issue("lamp-1", KEY.public_key(), is_ca=True)), "authority")


def test_a_certificate_for_servers() -> None:
    leaf = AUTHORITY.issue("lamp-1", KEY.public_key(), usage=ExtendedKeyUsageOID.SERVER_AUTH)
    refused(answer(leaf), "clients")


def test_a_chain_that_does_not_hang_together() -> None:
    refused(answer(GOOD, certificate_chain=pem(GOOD) + TestAuthority().pem), "issued by")


@pytest.mark.parametrize("chain", ["", "nonsense", "é", pem(GOOD)[:-40], pem(GOOD) * 9])
def test_a_chain_that_is_none(chain: str) -> None:
    refused(answer(GOOD, certificate_chain=chain), "chain")


@pytest.mark.parametrize("anchors", ["", "nonsense", "é"])
def test_anchors_that_are_none(anchors: str) -> None:
    trust = TrustBundle(version=2, anchors=anchors)
    refused(answer(GOOD, trust_bundle=trust), "trust bundle")


def test_anchors_that_have_expired() -> None:
    with pytest.raises(AnswerInvalid, match="anchor"):
        check_answer(
            answer(AUTHORITY.issue("lamp-1", KEY.public_key(), valid=(-DAY, 200 * DAY))),
            SHA256,
            TRUST,
            NOW + 100 * DAY,
        )


def test_a_newer_trust_bundle_replaces_the_known_one() -> None:
    newer = TrustBundle(version=3, anchors=TestAuthority("Newer CA").pem)
    grant = check_answer(answer(GOOD, trust_bundle=newer), SHA256, TRUST, NOW)
    assert grant.trust_bundle == newer


def test_an_older_trust_bundle_does_not() -> None:
    older = TrustBundle(version=1, anchors=TestAuthority("Older CA").pem)
    grant = check_answer(answer(GOOD, trust_bundle=older), SHA256, TRUST, NOW)
    assert grant.trust_bundle == TRUST
