"""Why the agent can't go on, each with one stable code, a sentence and a remedy."""

from typing import ClassVar, Final

from broker.protocol.messages import Rejected
from broker.protocol.zones import Zone


class DeviceError(Exception):
    """Something that stands between this device and the fleet; `remedy` says what to do next."""

    code: ClassVar[str] = "failed"

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    @property
    def stable_code(self) -> str:
        """What a script may rely on."""
        return self.code


class StateUnusable(DeviceError):
    """The state directory can't be read or written."""

    code = "state_unusable"


class StateMissing(DeviceError):
    """There is no state directory to look into."""

    code = "state_missing"


class StateLocked(DeviceError):
    """Another agent works in this state directory."""

    code = "state_locked"


class BundleInvalid(DeviceError):
    """The claim bundle is missing, unreadable or not one."""

    code = "bundle_invalid"


class ArgumentInvalid(DeviceError):
    """What was given on the command line can't be asked for."""

    code = "argument_invalid"


class SerialMissing(DeviceError):
    """No serial number was given and the hardware has none."""

    code = "serial_missing"


class Unreachable(DeviceError):
    """The broker can't be reached, or won't take connections now."""

    code = "unreachable"


class ServerNotTrusted(DeviceError):
    """The server couldn't prove that it is the one in the bundle; nothing was sent to it."""

    code = "server_not_trusted"


_WHERE_TO_LOOK: Final = {Zone.CLAIM: "muster claim-cert list", Zone.FLEET: "muster devices show"}


class KeyTooOld(ServerNotTrusted):
    """A certificate for this key proves nothing about the time; one for a fresh key would."""


class TrustRefused(DeviceError):
    """A trust bundle may not replace the one that this device has."""

    code = "trust_refused"

    def __init__(self, message: str) -> None:
        super().__init__(message, "The operator looks at 'muster ca rollover status'.")


class CertificateRefused(DeviceError):
    """The broker ended the connection instead of accepting it, as it does to a revoked device."""

    code = "certificate_refused"

    def __init__(self, zone: Zone, *, expired: bool = False) -> None:
        """`expired` is whether the broker said that this is the reason."""
        super().__init__(
            f"The {zone} broker refused this device's certificate.",
            f"The operator sees its validity and revocation with '{_WHERE_TO_LOOK[zone]}'.",
        )
        self.zone = zone
        self.expired = expired


class ConnectionLost(DeviceError):
    """An accepted connection ended."""

    code = "connection_lost"


class NoAnswer(DeviceError):
    """The broker took the request and the service didn't answer in time."""

    code = "no_answer"


class AnswerInvalid(DeviceError):
    """The service's answer can't be used; nothing of it was stored."""

    code = "answer_invalid"


class DutyFailed(DeviceError):
    """A part of the agent has a fault; the log has where."""

    code = "duty_failed"


class RenewalFailed(DeviceError):
    """The certificate that was granted doesn't work."""

    code = "renewal_failed"


class TimedOut(DeviceError):
    """The time that the caller allowed is over."""

    code = "timed_out"


class RequestRejected(DeviceError):
    """The service said no. The code is the service's, which may be newer than this program."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(rejected.message, rejected.remedy)
        self.rejected = rejected

    @property
    def stable_code(self) -> str:
        """The service's code."""
        return self.rejected.code
