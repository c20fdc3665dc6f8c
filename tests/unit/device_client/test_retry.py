"""What an error means for the next try."""

import pytest

from broker.protocol.codes import Code
from broker.protocol.messages import Rejected
from broker.protocol.zones import Zone
from device_client.errors import (
    AnswerInvalid,
    CertificateRefused,
    ConnectionLost,
    DeviceError,
    NoAnswer,
    RequestRejected,
    ServerNotTrusted,
    Unreachable,
)
from device_client.retry import TRIES_BEFORE_DOUBT, Prospect, is_worthless, prospect

NEVER = {
    "payload_too_large",
    "payload_malformed",
    "field_invalid",
    "operation_unknown",
    "origin_invalid",
    "csr_malformed",
    "csr_signature_invalid",
    "csr_ca_requested",
    "csr_name_mismatch",
    "key_not_allowed",
    "key_in_use",
    "key_not_new",
    "key_retired",
    "certificate_malformed",
    "recovery_signature_invalid",
    "claim_unknown",
    "claim_revoked",
    "claim_expired",
    "claim_exhausted",
    "parameter_missing",
    "name_invalid",
}
SOON = {"rate_limited", "busy", "internal"}


def rejected(code: str) -> RequestRejected:
    return RequestRejected(Rejected(request_id="1", code=code, message="No.", remedy="Wait."))


@pytest.mark.parametrize("code", [*Code, "newer_than_this_program"])
def test_every_code(code: str) -> None:
    expected = Prospect.NEVER if code in NEVER else Prospect.LATER
    expected = Prospect.SOON if code in SOON else expected
    assert prospect(rejected(code), 1) is expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Unreachable("gone"), Prospect.SOON),
        (ConnectionLost("gone"), Prospect.SOON),
        (NoAnswer("silence"), Prospect.SOON),
        (ServerNotTrusted("wrong"), Prospect.NEVER),
        (AnswerInvalid("wrong"), Prospect.NEVER),
        (DeviceError("anything"), Prospect.LATER),
    ],
)
def test_every_kind_of_error(error: DeviceError, expected: Prospect) -> None:
    assert prospect(error, 100) is expected


@pytest.mark.parametrize(
    ("zone", "in_the_end"), [(Zone.CLAIM, Prospect.NEVER), (Zone.FLEET, Prospect.LATER)]
)
def test_a_refused_certificate_is_shown_again_before_it_is_believed(
    zone: Zone, in_the_end: Prospect
) -> None:
    for number in range(1, TRIES_BEFORE_DOUBT):
        assert prospect(CertificateRefused(zone), number) is Prospect.SOON
    assert prospect(CertificateRefused(zone), TRIES_BEFORE_DOUBT) is in_the_end


def test_what_the_service_disowns_is_worthless() -> None:
    assert is_worthless(rejected("certificate_revoked"))
    assert is_worthless(rejected("certificate_unknown"))
    assert not is_worthless(rejected("busy"))
    assert not is_worthless(CertificateRefused(Zone.FLEET)), "nobody said why"
