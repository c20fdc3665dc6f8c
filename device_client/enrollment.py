"""What this device claims with: the maker's bundle, its serial number and parameters."""

from dataclasses import dataclass, field
from pathlib import Path

from broker.protocol import codec, limits
from broker.protocol.bundle import ClaimBundle, read_bundle
from broker.protocol.codes import Refused
from broker.protocol.messages import Parameters, Serial
from device_client.errors import ArgumentInvalid, BundleInvalid, StateUnusable
from device_client.keys import KeyType

_MAX_ENROLLMENT = limits.MAX_BUNDLE + limits.MAX_REQUEST


@dataclass(frozen=True, kw_only=True)
class Enrollment:
    """Remembered as one file, so that a restarted agent asks for the same thing, or for none."""

    bundle: ClaimBundle
    serial: Serial
    parameters: Parameters = field(default_factory=dict)
    key_type: KeyType = KeyType.P256


def bundle_from(path: Path) -> ClaimBundle:
    """The bundle in a file.

    Raises:
        BundleInvalid: it can't be read, or isn't one.
    """
    try:
        with path.open("rb") as file:
            return read_bundle(file.read(limits.MAX_BUNDLE + 1))
    except (OSError, Refused) as error:
        raise BundleInvalid(
            f"The claim bundle {path} can't be used: {error}",
            "Give the file that 'muster claim-cert create' wrote, readable by this user.",
        ) from error


def checked(enrollment: Enrollment) -> Enrollment:
    """The same, if the protocol allows its serial number and parameters.

    Raises:
        ArgumentInvalid: it doesn't.
    """
    try:
        return codec.decode(to_bytes(enrollment), Enrollment, _MAX_ENROLLMENT)
    except Refused as refused:
        raise ArgumentInvalid(
            f"The serial number or a parameter isn't allowed: {refused.detail}",
            "Serial numbers have 1 to 64 letters, digits or '_.:-', parameters lower-case names.",
        ) from refused


def to_bytes(enrollment: Enrollment) -> bytes:
    """The enrollment as the text of its file."""
    return codec.encode(enrollment)


def from_bytes(content: bytes) -> Enrollment:
    """The enrollment from its file's text.

    Raises:
        StateUnusable: the file was damaged.
    """
    try:
        return codec.decode(content, Enrollment, _MAX_ENROLLMENT)
    except Refused as error:
        raise StateUnusable(
            f"The remembered claim can't be read: {error}",
            "Run 'muster-device claim --bundle FILE' once more.",
        ) from error
