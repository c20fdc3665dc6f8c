"""The claim bundle: there and back, bounded, and silent about its key."""

import json

import pytest

from broker.protocol import limits
from broker.protocol.bundle import ClaimBundle, read_bundle, write_bundle
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import Endpoint, TrustBundle

BUNDLE = ClaimBundle(
    claim_name="batch-7",
    certificate="CERTIFICATE",
    private_key="SECRET",
    claim=Endpoint(host="claim.example", port=8884),
    trust_bundle=TrustBundle(version=1, anchors="ANCHORS"),
)


def code_of(text: bytes) -> Code:
    with pytest.raises(Refused) as refused:
        read_bundle(text)
    return refused.value.code


def test_a_bundle_round_trips_as_one_line_of_text() -> None:
    text = write_bundle(BUNDLE)
    assert read_bundle(text) == BUNDLE
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1


def test_neither_repr_nor_str_holds_the_key() -> None:
    for shown in (repr(BUNDLE), str(BUNDLE), f"{BUNDLE}", repr([BUNDLE])):
        assert "SECRET" not in shown
        assert "batch-7" in shown


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"version": 2}, Code.FIELD_INVALID),
        ({"claim_name": "a/b"}, Code.FIELD_INVALID),
        ({"private_key": None}, Code.FIELD_INVALID),
        ({"claim": {"host": "x"}}, Code.FIELD_INVALID),
    ],
)
def test_a_faulty_bundle_is_refused(changes: dict[str, object], code: Code) -> None:
    text = json.dumps(json.loads(write_bundle(BUNDLE)) | changes).encode()
    assert code_of(text) is code


def test_a_refusal_doesn_t_hold_the_key() -> None:
    text = json.dumps(json.loads(write_bundle(BUNDLE)) | {"version": 2}).encode()
    with pytest.raises(Refused) as refused:
        read_bundle(text)
    assert "SECRET" not in f"{refused.value}{refused.value.detail}{refused.value.__cause__}"


def test_what_is_no_bundle_is_refused() -> None:
    assert code_of(b"-----BEGIN CERTIFICATE-----") is Code.PAYLOAD_MALFORMED
    assert code_of(b" " * (limits.MAX_BUNDLE + 1)) is Code.PAYLOAD_TOO_LARGE
