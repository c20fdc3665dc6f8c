"""Which questions about a certificate's status are understood, and what a record answers."""

import contextlib
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from hypothesis import given
from hypothesis import strategies as st

from broker.core.lifecycle import CertificateState
from broker.core.ocsp import (
    MAX_QUESTION,
    Good,
    MalformedQuestion,
    Revoked,
    StatusQuestion,
    Unknown,
    decide_status,
    parse_question,
)
from broker.core.records import RevocationReason
from tests.support.records import NOW, a_certificate


def question(
    algorithm: hashes.HashAlgorithm, nonce: bytes | None = None, serial: int = 0xD1
) -> bytes:
    size = algorithm.digest_size
    builder = ocsp.OCSPRequestBuilder().add_certificate_by_hash(
        b"n" * size, b"k" * size, serial, algorithm
    )
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


@pytest.mark.parametrize("algorithm", [hashes.SHA1(), hashes.SHA256()], ids=lambda a: a.name)  # noqa: S303
def test_a_question_is_read(algorithm: hashes.HashAlgorithm) -> None:
    found = parse_question(question(algorithm, b"nonce"))
    assert found.serial == a_certificate().serial
    assert (found.issuer_name_hash, found.nonce) == (b"n" * algorithm.digest_size, b"nonce")


@pytest.mark.parametrize(("size", "is_taken"), [(0, False), (1, True), (128, True), (129, False)])
def test_nonces_have_the_sizes_of_rfc_9654(size: int, is_taken: bool) -> None:
    der = question(hashes.SHA256(), b"x" * size)
    if is_taken:
        assert parse_question(der).nonce == b"x" * size
    else:
        with pytest.raises(MalformedQuestion):
            parse_question(der)


@pytest.mark.parametrize("algorithm", [hashes.SHA384(), hashes.SHA512()], ids=lambda a: a.name)
def test_other_hashes_aren_t_taken(algorithm: hashes.HashAlgorithm) -> None:
    with pytest.raises(MalformedQuestion):
        parse_question(question(algorithm))


def test_two_certificates_in_one_question_aren_t_taken() -> None:
    """Made by hand, because the library makes none: the list's one entry, twice."""
    der = question(hashes.SHA256())
    assert der[0] == der[2] == der[4] == der[6] == 0x30
    entry = der[6:]
    listed = b"\x30\x81" + bytes([2 * len(entry)]) + entry + entry
    inner = b"\x30\x81" + bytes([len(listed)]) + listed
    with pytest.raises(MalformedQuestion):
        parse_question(b"\x30\x81" + bytes([len(inner)]) + inner)


def test_what_is_too_long_isn_t_looked_at() -> None:
    with pytest.raises(MalformedQuestion, match="too long"):
        parse_question(b"\x30" * (MAX_QUESTION + 1))


@given(st.binary(max_size=200))
def test_noise_is_malformed(noise: bytes) -> None:
    with pytest.raises(MalformedQuestion):
        parse_question(noise)


@given(st.data())
def test_a_damaged_question_is_malformed_or_another_question(data: st.DataObject) -> None:
    der = bytearray(question(hashes.SHA256(), b"0123456789abcdef"))
    for _ in range(data.draw(st.integers(1, 4))):
        der[data.draw(st.integers(0, len(der) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(MalformedQuestion):
        assert isinstance(parse_question(bytes(der)), StatusQuestion)


def test_a_record_s_status() -> None:
    issued = a_certificate()
    at = NOW - timedelta(minutes=1)
    assert decide_status(None) == Unknown()
    assert decide_status(issued) == Good()
    assert decide_status(replace(issued, state=CertificateState.ACTIVE)) == Good()
    held = replace(issued, state=CertificateState.ACTIVE, held_at=at)
    assert decide_status(held) == Revoked(at, RevocationReason.SUSPENDED)
    revoked = replace(
        issued,
        state=CertificateState.REVOKED,
        revoked_at=NOW,
        revoked_for=RevocationReason.RETIRED,
        held_at=at,
    )
    assert decide_status(revoked) == Revoked(NOW, RevocationReason.RETIRED)
