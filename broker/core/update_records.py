"""What the registry holds about updates, as values. Times are aware and in UTC."""

from dataclasses import dataclass, field
from datetime import datetime

from broker.core.rollout import Progress
from broker.protocol.names import DeviceId
from broker.protocol.updates import Phase


@dataclass(frozen=True)
class Part:
    """One device's part in a rollout."""

    rollout: str
    device_id: DeviceId
    progress: Progress
    changed_at: datetime
    """Since when it stands there."""
    wave: int = 0
    """In which it was told; while it's queued, 0 or that of the late joiners."""
    draw: int = 0
    """Its place in the queue, which has nothing to do with its name."""
    sequence: int | None = None
    """Of the assignment that holds, or held last."""
    code: str | None = None
    """Why it failed, was skipped or was called back."""
    detail: str | None = None


@dataclass(frozen=True)
class GivenAssignment:
    """An assignment as it was signed for a device; `sequence` rises with each of the device's."""

    device_id: DeviceId
    sequence: int
    rollout: str
    nonce: str
    issued_at: datetime
    expires: datetime
    targets: tuple[tuple[str, str], ...]
    """Path and SHA-256 of each image; none when it calls an earlier one back."""
    calls_back: int | None = None
    """The sequence of the assignment that it ends."""
    settled_at: datetime | None = None
    """Since when it needs no renewal: its end was reported, or another took its place."""


@dataclass(frozen=True)
class KnownReport:
    """The one report by which an assignment ended; what came before it only moves the part."""

    device_id: DeviceId
    report_id: str
    sha256: str
    """Of its text: the same id with another text is another report."""
    rollout: str
    sequence: int
    phase: Phase
    at: datetime
    received_at: datetime
    code: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class DeviceUpdate:
    """What is known of one device's software, from what it reported."""

    device_id: DeviceId
    sequence: int = 0
    """Of its last assignment."""
    rollout: str | None = None
    rollout_number: int = 0
    running: dict[str, str] = field(default_factory=dict)
    """What runs: each image's path and version; of what came from the factory, the component's name
    and its version."""
    security_counter: int | None = None
    support_until: datetime | None = None
    reported_at: datetime | None = None
    phase: Phase | None = None
    """What it said last."""
    code: str | None = None
    rolled_back: tuple[str, ...] = ()
    """The SHA-256 of images that didn't pass on it, the newest last."""
