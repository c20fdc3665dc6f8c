"""The codec: whatever comes in, what comes out is complete and typed, or one of three refusals."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import codec, limits
from broker.protocol.codes import EXPLANATIONS, Code, Refused, public
from broker.protocol.messages import ConfirmRequest, EnrollRequest, Rejected

ENROLL: dict[str, Any] = {"request_id": "r1", "serial": "A1", "csr": "PEM"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)


def encoded(**changes: Any) -> bytes:
    """A good enroll request with changes; `...` leaves a field out."""
    fields = {k: v for k, v in (ENROLL | changes).items() if v is not ...}
    return json.dumps(fields).encode()


def code_of(payload: bytes, limit: int = limits.MAX_REQUEST) -> Code:
    with pytest.raises(Refused) as refused:
        codec.decode(payload, EnrollRequest, limit)
    return refused.value.code


requests = st.builds(
    EnrollRequest,
    request_id=TEXT.filter(lambda t: 1 <= len(t) <= limits.MAX_REQUEST_ID),
    serial=st.from_regex(r"\A[A-Za-z0-9_.:-]{1,64}\Z"),
    csr=TEXT.filter(bool),
    parameters=st.dictionaries(
        st.from_regex(r"\A[a-z][a-z0-9_]{0,31}\Z"), TEXT, max_size=limits.MAX_PARAMETERS
    ),
)


@given(requests)
def test_a_request_round_trips(request: EnrollRequest) -> None:
    payload = codec.encode(request)
    assert codec.decode(payload, EnrollRequest, len(payload)) == request
    assert json.loads(payload)["serial"] == request.serial


@given(st.binary(max_size=300))
def test_bytes_are_refused_with_one_of_three_codes(payload: bytes) -> None:
    assert code_of(payload) in (Code.PAYLOAD_MALFORMED, Code.FIELD_INVALID)
    codec.request_id_of(payload)


@given(JSON)
def test_any_json_is_a_whole_request_or_refused(value: object) -> None:
    payload = json.dumps(value).encode()
    assert code_of(payload, 1_000_000) is Code.FIELD_INVALID


@given(st.dictionaries(st.sampled_from(["request_id", "serial", "csr", "parameters"]), JSON))
def test_wrong_fields_are_named(fields: dict[str, object]) -> None:
    payload = json.dumps(fields).encode()
    try:
        request = codec.decode(payload, EnrollRequest, 1_000_000)
    except Refused as refused:
        found = (refused.code, bool(refused.detail))
        assert found == (Code.FIELD_INVALID, True)
    else:
        assert request.request_id == fields["request_id"]


@given(st.integers(0, len(encoded()) - 1))
def test_a_truncated_request_is_malformed(length: int) -> None:
    assert code_of(encoded()[:length]) is Code.PAYLOAD_MALFORMED


@given(st.dictionaries(TEXT.filter(lambda k: k not in (*ENROLL, "parameters")), JSON))
def test_unknown_fields_are_ignored(extra: dict[str, object]) -> None:
    decoded = codec.decode(json.dumps(extra | ENROLL).encode(), EnrollRequest, 1_000_000)
    assert decoded == EnrollRequest(request_id="r1", serial="A1", csr="PEM")


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"request_id": ...}, "request_id"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 65}, "request_id"),
        ({"request_id": 1}, "request_id"),
        ({"request_id": None}, "request_id"),
        ({"serial": ...}, "serial"),
        ({"serial": ""}, "serial"),
        ({"serial": "a/b"}, "serial"),
        ({"serial": "A1\n"}, "serial"),
        ({"serial": "x" * 65}, "serial"),
        ({"serial": 17}, "serial"),
        ({"csr": ...}, "csr"),
        ({"csr": ""}, "csr"),
        ({"csr": "x" * 8193}, "csr"),
        ({"csr": ["PEM"]}, "csr"),
        ({"parameters": None}, "parameters"),
        ({"parameters": []}, "parameters"),
        ({"parameters": {"Model": "x"}}, "parameters"),
        ({"parameters": {"1x": "x"}}, "parameters"),
        ({"parameters": {"": "x"}}, "parameters"),
        ({"parameters": {"m" * 33: "x"}}, "parameters"),
        ({"parameters": {"model": 1}}, "parameters"),
        ({"parameters": {"model": "x" * 129}}, "parameters"),
        ({"parameters": {f"p{n}": "" for n in range(17)}}, "parameters"),
    ],
)
def test_a_field_out_of_bounds_is_refused_by_its_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Refused) as refused:
        codec.decode(encoded(**changes), EnrollRequest)
    assert refused.value.code is Code.FIELD_INVALID
    assert named in refused.value.detail


@pytest.mark.parametrize(
    "changes",
    [
        {"request_id": "x" * 64},
        {"serial": "x" * 64},
        {"csr": "x" * 8192},
        {"parameters": {f"p{n}": "x" * 128 for n in range(16)}},
        {"parameters": {"m" * 32: ""}},
    ],
)
def test_a_field_at_its_bound_is_taken(changes: dict[str, Any]) -> None:
    codec.decode(encoded(**changes), EnrollRequest)


@pytest.mark.parametrize("sha", ["A" * 64, "a" * 63, "a" * 65, "", "a" * 64 + "\n"])
def test_a_confirmation_names_a_whole_fingerprint(sha: str) -> None:
    payload = json.dumps(
        {"request_id": "r", "certificate_sha256": sha, "signature": "AA=="}
    ).encode()
    with pytest.raises(Refused, match="certificate_sha256"):
        codec.decode(payload, ConfirmRequest)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"\xef\xbb\xbf" + encoded(),
        encoded().decode().encode("utf-16"),
        encoded() + b"x",
        encoded() + encoded(),
        b"{'request_id':'r'}",
        b'{"request_id":"\xff"}',
        encoded()[:-1] + b',"unknown":"\xff"}',
        b'{"request_id":"\\ud800","serial":"A1","csr":"PEM"}',
        b'{"request_id":"r","x":NaN}',
        b'{"request_id":"r","x":' + b"[" * 5000,
        b'{"request_id":"r","x":' + b"[" * 2000 + b"]" * 2000 + b"}",
        b'{"a":' * 2000,
    ],
)
def test_what_is_no_json_object_is_malformed(payload: bytes) -> None:
    assert code_of(payload) is Code.PAYLOAD_MALFORMED
    assert codec.request_id_of(payload) is None


@pytest.mark.parametrize("payload", [b"null", b"1", b'"x"', b"true", b"[]", b"[" * 5000])
def test_json_that_is_no_object_is_refused(payload: bytes) -> None:
    assert code_of(payload) is Code.FIELD_INVALID


def test_of_a_field_given_twice_the_last_counts() -> None:
    payload = b'{"request_id":"r1","serial":"A1","csr":"PEM","serial":"B2"}'
    assert codec.decode(payload, EnrollRequest).serial == "B2"


def test_size_is_judged_before_content() -> None:
    huge = b"\xff" * (limits.MAX_REQUEST + 1)
    assert code_of(huge) is Code.PAYLOAD_TOO_LARGE
    assert code_of(huge[:-1]) is Code.PAYLOAD_MALFORMED
    assert codec.request_id_of(b'{"request_id":"r","x":"' + huge) is None


def test_every_field_at_its_bound_fits_a_request() -> None:
    largest = encoded(
        request_id="x" * 64,
        serial="x" * 64,
        csr="x" * 8192,
        parameters={f"p{n}".ljust(32, "x"): "x" * 128 for n in range(16)},
    )
    codec.decode(largest, EnrollRequest)


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b'{"request_id":"r1"}', "r1"),
        (b'{"request_id":"r1","serial":17}', "r1"),
        (encoded(serial="/"), "r1"),
        (b'{"request_id":""}', None),
        (b'{"request_id":"%s"}' % (b"x" * 65), None),
        (b'{"request_id":17}', None),
        (b'{"request_id":null}', None),
        (b"{}", None),
        (b"[]", None),
    ],
)
def test_the_request_id_is_found_in_a_faulty_request(payload: bytes, found: str | None) -> None:
    assert codec.request_id_of(payload) == found


@pytest.mark.parametrize("code", Code)
def test_a_masked_code_leaks_neither_itself_nor_a_detail(code: Code) -> None:
    rejected = codec.rejection(Refused(code, "SECRET", retry_after_s=7), "r1")
    masked = public(code) is not code
    assert rejected.code == public(code)
    assert rejected.message == (EXPLANATIONS[public(code)].message if masked else "SECRET")
    assert rejected.remedy == EXPLANATIONS[public(code)].remedy
    assert (rejected.request_id, rejected.retry_after_s) == ("r1", 7)
    if masked:
        wire = codec.encode(rejected)
        assert b"SECRET" not in wire
        assert code.encode() not in wire


@pytest.mark.parametrize(("told", "causes"), [("serial_refused", 4), ("recovery_refused", 5)])
def test_masked_refusals_can_t_be_told_apart(told: str, causes: int) -> None:
    masked = [code for code in Code if public(code) == told and code != told]
    wires = {codec.encode(codec.rejection(Refused(c, f"because {c}", 900), "r")) for c in masked}
    assert len(masked) == causes
    assert len(wires) == 1


@pytest.mark.parametrize("code", Code)
def test_a_refusal_without_detail_says_the_explanation(code: Code) -> None:
    rejected = codec.rejection(Refused(code), None)
    assert rejected.message == EXPLANATIONS[public(code)].message
    assert rejected.request_id is None
    assert rejected.retry_after_s is None


@pytest.mark.parametrize("code", Code)
def test_a_rejection_round_trips(code: Code) -> None:
    rejected = codec.rejection(Refused(code, retry_after_s=1), "r")
    assert codec.decode(codec.encode(rejected), Rejected, limits.MAX_ANSWER) == rejected
