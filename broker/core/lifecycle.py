"""The lives of a device and of a certificate, as tables: what is missing is an error."""

from enum import StrEnum
from typing import Final


class DeviceState(StrEnum):
    """Where a device stands."""

    REGISTERED = "registered"
    """Known by name, without a certificate; its serial number may be claimed."""
    PENDING = "pending"
    """Holds a certificate that it hasn't proven yet."""
    ACTIVE = "active"
    ROTATING = "rotating"
    """Lives on its certificate while a newer one waits to be proven."""
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    RETIRED = "retired"


MEMBERS: Final = frozenset({DeviceState.ACTIVE, DeviceState.ROTATING})
"""Who lives on a proven certificate that the fleet's broker lets in."""


class DeviceInput(StrEnum):
    """What happens to a device."""

    ISSUE = "issue"
    CONFIRM = "confirm"
    LAPSE = "lapse"
    """The certificate it was issued last was never proven in time."""
    SUSPEND = "suspend"
    RESUME = "resume"
    REVOKE = "revoke"
    RECLAIM = "reclaim"
    RETIRE = "retire"


class CertificateState(StrEnum):
    """Where an operational certificate stands. Expiry is read off the clock, never stored."""

    ISSUED = "issued"
    ACTIVE = "active"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


class CertificateInput(StrEnum):
    """What happens to a certificate."""

    CONFIRM = "confirm"
    SUPERSEDE = "supersede"
    REVOKE = "revoke"


_D = DeviceState
_I = DeviceInput

DEVICE_TRANSITIONS: Final[dict[tuple[DeviceState, DeviceInput], DeviceState]] = {
    (_D.REGISTERED, _I.ISSUE): _D.PENDING,
    (_D.REGISTERED, _I.REVOKE): _D.REVOKED,
    (_D.REGISTERED, _I.RETIRE): _D.RETIRED,
    (_D.PENDING, _I.ISSUE): _D.PENDING,
    (_D.PENDING, _I.CONFIRM): _D.ACTIVE,
    (_D.PENDING, _I.LAPSE): _D.REGISTERED,
    (_D.PENDING, _I.REVOKE): _D.REVOKED,
    (_D.PENDING, _I.RETIRE): _D.RETIRED,
    (_D.ACTIVE, _I.ISSUE): _D.ROTATING,
    (_D.ACTIVE, _I.CONFIRM): _D.ACTIVE,
    (_D.ACTIVE, _I.SUSPEND): _D.SUSPENDED,
    (_D.ACTIVE, _I.REVOKE): _D.REVOKED,
    (_D.ACTIVE, _I.RETIRE): _D.RETIRED,
    (_D.ROTATING, _I.ISSUE): _D.ROTATING,
    (_D.ROTATING, _I.CONFIRM): _D.ACTIVE,
    (_D.ROTATING, _I.LAPSE): _D.ACTIVE,
    (_D.ROTATING, _I.SUSPEND): _D.SUSPENDED,
    (_D.ROTATING, _I.REVOKE): _D.REVOKED,
    (_D.ROTATING, _I.RETIRE): _D.RETIRED,
    (_D.SUSPENDED, _I.RESUME): _D.ACTIVE,
    (_D.SUSPENDED, _I.REVOKE): _D.REVOKED,
    (_D.SUSPENDED, _I.RETIRE): _D.RETIRED,
    (_D.REVOKED, _I.RECLAIM): _D.REGISTERED,
    (_D.REVOKED, _I.RETIRE): _D.RETIRED,
}

CERTIFICATE_TRANSITIONS: Final[
    dict[tuple[CertificateState, CertificateInput], CertificateState]
] = {
    (CertificateState.ISSUED, CertificateInput.CONFIRM): CertificateState.ACTIVE,
    (CertificateState.ISSUED, CertificateInput.SUPERSEDE): CertificateState.SUPERSEDED,
    (CertificateState.ISSUED, CertificateInput.REVOKE): CertificateState.REVOKED,
    (CertificateState.ACTIVE, CertificateInput.CONFIRM): CertificateState.ACTIVE,
    (CertificateState.ACTIVE, CertificateInput.SUPERSEDE): CertificateState.SUPERSEDED,
    (CertificateState.ACTIVE, CertificateInput.REVOKE): CertificateState.REVOKED,
    (CertificateState.SUPERSEDED, CertificateInput.REVOKE): CertificateState.REVOKED,
}


class TransitionError(Exception):
    """The table has no such step: the caller asked for what can't happen."""

    code = "transition_invalid"


def next_device_state(state: DeviceState, happens: DeviceInput) -> DeviceState:
    """The state that follows.

    Raises:
        TransitionError: the table has no such step.
    """
    try:
        return DEVICE_TRANSITIONS[state, happens]
    except KeyError:
        raise TransitionError(f"a device that is {state} can't {happens}") from None


def next_certificate_state(state: CertificateState, happens: CertificateInput) -> CertificateState:
    """The state that follows.

    Raises:
        TransitionError: the table has no such step.
    """
    try:
        return CERTIFICATE_TRANSITIONS[state, happens]
    except KeyError:
        raise TransitionError(f"a certificate that is {state} can't {happens}") from None
