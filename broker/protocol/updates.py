"""What devices and the service say to each other about updates (docs/protocol.md).

Trust comes from TUF 1.0's metadata, which is retained unchanged under `UPDATE_METADATA`. An
assignment only selects among the images that it signs, for one device. The director's public keys
are in root.json, in the field `x-muster-director` (`{"keyids": [...], "threshold": n}`, the keys
among root's `keys`): so only the offline root decides who may assign.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from broker.protocol import limits, names
from broker.protocol.messages import Moment, RequestId, Sha256, Signature

DIRECTOR_FIELD = "x-muster-director"

TargetPath = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=limits.MAX_TARGET_PATH,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+-]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)*\Z",
    ),
]
"""A target's path in TUF's sense, without empty parts, `..` or a leading dot."""
KeyId = Annotated[str, Meta(pattern=names.FINGERPRINT_PATTERN)]
Length = Annotated[int, Meta(ge=0, le=1 << 40)]
HardwareRevision = Annotated[str, Meta(pattern=names.NAME_PATTERN)]
VersionText = Annotated[str, Meta(max_length=64, pattern=r"^\d+(\.\d+){0,3}(-[0-9A-Za-z.-]+)?\Z")]
"""One to four numbers, and what SemVer 2.0 calls a pre-release; see `broker.protocol.versions`."""
RolloutName = Annotated[str, Meta(pattern=names.NAME_PATTERN)]


@dataclass(frozen=True, kw_only=True)
class ImageFacts:
    """What TUF's targets metadata says of an image, in its `custom` field."""

    component: Annotated[str, Meta(pattern=names.NAME_PATTERN)] = "main"
    """Which part of the device it replaces; each part has slots and a version of its own."""
    model: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    hw_revs: Annotated[tuple[HardwareRevision, ...], Meta(max_length=64)] = ()
    """The hardware revisions on which it runs; none given means all."""
    version: VersionText
    security_counter: Annotated[int, Meta(ge=0, le=1 << 31)]
    """Rises when an older version must not run any more; the device never lets it fall."""
    min_source_version: VersionText | None = None
    """The oldest version of the component from which this one can be reached."""
    depends: Annotated[dict[str, VersionText], Meta(max_length=16)] = field(default_factory=dict)
    """By component, the oldest version that must run beside it, or come with it."""
    sbom: TargetPath | None = None
    """The target that holds its bill of materials."""
    support_until: Moment | None = None
    vulnerability_contact: Annotated[str, Meta(max_length=256)] | None = None
    """Where to report a weakness: `mailto:` or `https://`."""
    notes: Annotated[str, Meta(max_length=2048)] | None = None


@dataclass(frozen=True, kw_only=True)
class AssignedTarget:
    """One image that the device is to run; TUF's targets metadata must say the same of it."""

    path: TargetPath
    sha256: Sha256
    length: Length
    sources: tuple[Annotated[str, Meta(max_length=1024)], ...] = ()
    """Where to fetch it, the best first: `https://…` or `http://…`. With none, or when all of them
    fail, by `block` requests. They need no trust: what arrives is checked against TUF's hash."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What one device is to run, signed by the director."""

    device_id: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    sequence: Annotated[int, Meta(ge=1, le=limits.MAX_COUNTER)]
    """Rises with each assignment for this device; an older one is a replay, until root names other
    keys for the director: then devices count anew."""
    rollout: RolloutName
    nonce: Annotated[str, Meta(min_length=16, max_length=64)]
    issued_at: Moment
    expires: Moment
    """After it the assignment is refused; the service renews what still holds in time."""
    targets: Annotated[tuple[AssignedTarget, ...], Meta(max_length=limits.MAX_TARGETS)]
    """Nothing to run means: stop what has been begun (the rollout was cancelled)."""
    not_before: Moment | None = None
    """Download at once, but don't switch sooner."""
    deadline: Moment | None = None
    """When the switch must happen at the latest, window or not."""
    window: (
        Annotated[str, Meta(pattern=r"^([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d\Z")] | None
    ) = None
    """The hours in UTC in which to switch, such as `22:00-04:00`."""


@dataclass(frozen=True, kw_only=True)
class KeySignature:
    """One signature, and by which key of root.json (its TUF key id)."""

    keyid: KeyId
    signature: Signature


@dataclass(frozen=True, kw_only=True)
class SignedAssignment:
    """Retained under `desired/update`."""

    assignment: Annotated[str, Meta(min_length=1, max_length=limits.MAX_ASSIGNMENT)]
    """An `Assignment` as JSON text; what is signed is `assignment_statement` of this very text."""
    signatures: Annotated[tuple[KeySignature, ...], Meta(min_length=1, max_length=8)]


class Phase(StrEnum):
    """How far a device has come with an assignment."""

    DOWNLOADING = "downloading"
    WAITING = "waiting"
    """Downloaded and checked; the window to switch hasn't come."""
    INSTALLED = "installed"
    """Runs, passed its health check, and was committed."""
    ROLLED_BACK = "rolled_back"
    """Didn't pass; what ran before runs again."""
    REFUSED = "refused"
    """Never installed, for the reason `code`."""
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows it for this assignment."""
        return self not in (Phase.DOWNLOADING, Phase.WAITING)


@dataclass(frozen=True, kw_only=True)
class UpdateReport:
    """What a device says of an assignment, signed by the key of its certificate."""

    report_id: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    """Made once for a report, and the same whenever it is repeated: it's counted once."""
    device_id: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    rollout: RolloutName
    sequence: Annotated[int, Meta(ge=1, le=limits.MAX_COUNTER)]
    phase: Phase
    at: Moment
    code: Annotated[str, Meta(max_length=64)] | None = None
    """Why, when it was refused or rolled back; one of the device's update codes."""
    detail: Annotated[str, Meta(max_length=512)] | None = None
    running: dict[TargetPath, str] | None = None
    """What runs now: each image's path and version; of what came from the factory, the component's
    name and its version."""
    security_counter: Annotated[int, Meta(ge=0, le=limits.MAX_COUNTER)] | None = None
    support_until: Moment | None = None
    """When support ends for what runs."""


@dataclass(frozen=True, kw_only=True)
class SoftwareReport:
    """What a device says that it runs, without any assignment: once for each certificate, and when
    it has changed without an update. Signed like the others."""

    report_id: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    device_id: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    at: Moment
    running: dict[TargetPath, str]
    """As in `UpdateReport`."""
    security_counter: Annotated[int, Meta(ge=0, le=limits.MAX_COUNTER)] | None = None
    support_until: Moment | None = None


class ReportKind(StrEnum):
    """What a report is about."""

    UPDATE = "update"
    """An assignment."""
    SOFTWARE = "software"
    """What runs."""


@dataclass(frozen=True, kw_only=True)
class ReportRequest:
    """Fleet zone, `report`: repeated until it's acknowledged."""

    request_id: RequestId
    report: Annotated[str, Meta(min_length=1, max_length=limits.MAX_STATEMENT)]
    """An `UpdateReport` or a `SoftwareReport` as JSON text; what is signed is `report_statement` or
    `software_statement` of this very text."""
    signature: Signature
    kind: ReportKind = ReportKind.UPDATE


@dataclass(frozen=True, kw_only=True)
class ReportAccepted:
    """The report is durable, whether for the first time or again."""

    request_id: str
    report_id: str


@dataclass(frozen=True, kw_only=True)
class BlockRequest:
    """Fleet zone, `block`: a part of an image that is assigned to the device that asks."""

    request_id: RequestId
    path: TargetPath
    sha256: Sha256
    offset: Length
    length: Annotated[int, Meta(ge=1, le=limits.MAX_BLOCK)]


@dataclass(frozen=True, kw_only=True)
class BlockAccepted:
    """The bytes, fewer than asked for at the image's end only."""

    request_id: str
    offset: int
    data: bytes
    """Base64 on the wire."""
