"""What messages promise beyond what the codec's tests show."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from broker.protocol import codec, limits
from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollAccepted, Rejected, RenewRequest
from broker.protocol.updates import UpdateReport

ACCEPTED: dict[str, Any] = {
    "request_id": "r1",
    "device_id": "lamp-A1",
    "certificate_chain": "PEM",
    "not_after": "2030-01-01T00:00:00Z",
    "confirm_by": None,
    "fleet": {"host": "fleet.example", "port": 8883},
    "trust_bundle": {"version": 1, "anchors": "PEM"},
}
REPORT: dict[str, Any] = {
    "report_id": "p1",
    "device_id": "lamp-A1",
    "rollout": "spring",
    "sequence": "N",
    "phase": "installed",
    "at": "2030-01-01T00:00:00Z",
}
COUNTED: list[tuple[type[object], dict[str, Any]]] = [
    (RenewRequest, {"request_id": "r1", "csr": "PEM", "signature": "AA==", "order": "N"}),
    (UpdateReport, REPORT),
]
REJECTED = {"request_id": None, "message": "No.", "remedy": "Ask.", "retry_after_s": None}


def accepted(**changes: Any) -> EnrollAccepted:
    payload = json.dumps(ACCEPTED | changes).encode()
    return codec.decode(payload, EnrollAccepted, limits.MAX_ANSWER)


@pytest.mark.parametrize("code", Code)
def test_a_known_code_is_recognized(code: Code) -> None:
    payload = json.dumps(REJECTED | {"code": code}).encode()
    assert codec.decode(payload, Rejected).known_code is code


def test_a_code_of_a_newer_service_is_readable_but_not_known() -> None:
    payload = json.dumps(REJECTED | {"code": "moon_phase_wrong"}).encode()
    rejected = codec.decode(payload, Rejected)
    assert rejected.code == "moon_phase_wrong"
    assert rejected.known_code is None


def test_times_are_aware() -> None:
    answer = accepted(confirm_by="2029-01-01T02:00:00+02:00")
    assert answer.not_after == datetime(2030, 1, 1, tzinfo=UTC)
    assert answer.confirm_by == datetime(2029, 1, 1, tzinfo=UTC)


def test_times_in_utc_are_written_with_z() -> None:
    assert b'"not_after":"2030-01-01T00:00:00Z"' in codec.encode(accepted())


@pytest.mark.parametrize(
    "changes",
    [
        {"not_after": "2030-01-01T00:00:00"},
        {"not_after": "tomorrow"},
        {"not_after": None},
        {"confirm_by": "2030-01-01T00:00:00"},
        {"confirm_by": 17},
        {"fleet": {"host": "", "port": 8883}},
        {"fleet": {"host": "x" * 254, "port": 8883}},
        {"fleet": {"host": "x", "port": 0}},
        {"fleet": {"host": "x", "port": 65_536}},
        {"fleet": None},
        {"trust_bundle": {"version": 0, "anchors": "PEM"}},
        {"trust_bundle": {"version": 1}},
    ],
)
def test_an_answer_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        accepted(**changes)
    assert refused.value.code is Code.FIELD_INVALID


@pytest.mark.parametrize("seconds", [-1, 31_536_001, 1.5, "5"])
def test_a_wait_is_whole_seconds_up_to_a_year(seconds: object) -> None:
    payload = json.dumps(REJECTED | {"code": "busy", "retry_after_s": seconds}).encode()
    with pytest.raises(Refused, match="retry_after_s"):
        codec.decode(payload, Rejected)


@pytest.mark.parametrize("number", [0, -1, limits.MAX_COUNTER + 1, 1 << 63, 10**30])
def test_a_number_that_no_database_keeps_is_refused(number: int) -> None:
    for kind, fields in COUNTED:
        payload = json.dumps(fields).replace('"N"', str(number)).encode()
        with pytest.raises(Refused) as refused:
            codec.decode(payload, kind)
        assert refused.value.code is Code.FIELD_INVALID


def test_the_largest_number_is_taken() -> None:
    for kind, fields in COUNTED:
        payload = json.dumps(fields).replace('"N"', str(limits.MAX_COUNTER)).encode()
        assert codec.decode(payload, kind)
