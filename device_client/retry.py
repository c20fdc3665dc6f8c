"""What an error means for the next try: soon, slowly, or not at all."""

from enum import Enum, auto
from typing import Final

from broker.protocol.codes import Code
from broker.protocol.zones import Zone
from device_client.errors import (
    AnswerInvalid,
    BundleInvalid,
    CertificateRefused,
    ConnectionLost,
    DeviceError,
    DutyFailed,
    NoAnswer,
    RequestRejected,
    ServerNotTrusted,
    StateUnusable,
    Unreachable,
)


class Prospect(Enum):
    """What waiting may do about an error."""

    SOON = auto()
    """The world may be different in a moment."""
    LATER = auto()
    """Somebody has to do something, and may well be about to."""
    NEVER = auto()
    """It won't end until somebody changes this device, the service or its policy."""


TRIES_BEFORE_DOUBT: Final = 3
"""A broker that restarts also hangs up before CONNACK; so often in a row it means what it says."""

_SOON: Final = frozenset({Code.RATE_LIMITED, Code.BUSY, Code.INTERNAL})
_NEVER: Final = frozenset(
    {
        Code.PAYLOAD_TOO_LARGE,
        Code.PAYLOAD_MALFORMED,
        Code.FIELD_INVALID,
        Code.OPERATION_UNKNOWN,
        Code.ORIGIN_INVALID,
        Code.CSR_MALFORMED,
        Code.CSR_SIGNATURE_INVALID,
        Code.CSR_CA_REQUESTED,
        Code.CSR_NAME_MISMATCH,
        Code.KEY_NOT_ALLOWED,
        Code.KEY_IN_USE,
        Code.KEY_NOT_NEW,
        Code.KEY_RETIRED,
        Code.CERTIFICATE_MALFORMED,
        Code.RECOVERY_SIGNATURE_INVALID,
        Code.CLAIM_UNKNOWN,
        Code.CLAIM_REVOKED,
        Code.CLAIM_EXPIRED,
        Code.CLAIM_EXHAUSTED,
        Code.PARAMETER_MISSING,
        Code.NAME_INVALID,
    }
)


_CLAIM_INSTEAD: Final = frozenset(
    {
        Code.OPERATION_UNKNOWN,
        Code.CERTIFICATE_UNKNOWN,
        Code.CERTIFICATE_REVOKED,
        Code.CERTIFICATE_MALFORMED,
        Code.RECOVERY_SIGNATURE_INVALID,
        Code.RECOVERY_TOO_EARLY,
        Code.RECOVERY_REFUSED,
    }
)


def is_worthless(error: DeviceError) -> bool:
    """Whether the service has said that the certificate doesn't count."""
    codes = (Code.CERTIFICATE_UNKNOWN, Code.CERTIFICATE_REVOKED)
    return isinstance(error, RequestRejected) and error.rejected.known_code in codes


def says_expired(error: DeviceError) -> bool:
    """Whether the service has said that the connection has outlived its certificate."""
    if not isinstance(error, RequestRejected):
        return False
    return error.rejected.known_code is Code.CERTIFICATE_EXPIRED


def may_claim_instead(code: Code | None) -> bool:
    """Whether a device whose recovery was refused may ask like a new one.

    The group's rule for a serial number that has a device decides then; and an operator may have
    reclaimed this one, who begins anew.
    """
    return code in _CLAIM_INSTEAD


def prospect(error: DeviceError, in_a_row: int) -> Prospect:
    """What waiting may do about `error`, the `in_a_row`-th of its kind without another between."""
    match error:
        case RequestRejected():
            return _of_code(error.rejected.known_code)
        case CertificateRefused():
            if in_a_row < TRIES_BEFORE_DOUBT:
                return Prospect.SOON
            return Prospect.NEVER if error.zone is Zone.CLAIM else Prospect.LATER
        case Unreachable() | ConnectionLost() | NoAnswer() | DutyFailed():
            return Prospect.SOON
        case ServerNotTrusted() | AnswerInvalid() | BundleInvalid() | StateUnusable():
            return Prospect.NEVER
        case _:
            return Prospect.LATER


def _of_code(code: Code | None) -> Prospect:
    """A code that's newer than this program may mean anything: ask again, but seldom."""
    if code in _SOON:
        return Prospect.SOON
    if code in _NEVER:
        return Prospect.NEVER
    return Prospect.LATER
