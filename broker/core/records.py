"""What the registry holds, as values. Times are aware and in UTC."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from broker.core.ca_rollover import FIRST_GENERATION
from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState
from broker.protocol.names import (
    CertificateSerial,
    ClaimName,
    DeviceId,
    Fingerprint,
    GroupName,
    SerialNumber,
)
from broker.protocol.zones import Zone


@dataclass(frozen=True)
class ClaimCertificate:
    """A bootstrap certificate, flashed on a batch: it may ask, and nothing else."""

    name: ClaimName
    serial: CertificateSerial
    not_before: datetime
    not_after: datetime
    max_claims: int
    claims: int = 0
    """Certificates issued through it that were proven, or still may be."""
    revoked_at: datetime | None = None


class Serials(StrEnum):
    """Which serial numbers may claim in a group."""

    LISTED = "listed"
    ANY = "any"


class Reprovision(StrEnum):
    """What a claim for a serial number that has a device already may do."""

    REFUSE = "refuse"
    SAME_KEY = "same-key"
    REPLACE = "replace"


class RotationKey(StrEnum):
    """With which key a device of the group may renew its certificate."""

    NEW = "new"
    SAME_ALLOWED = "same-allowed"
    """A new one, or the one that it has: for devices whose key can't be made anew."""


@dataclass(frozen=True)
class EnrollmentGroup:
    """The rule by which claims become devices; without a group there are no claims."""

    name: GroupName
    claim_certificates: frozenset[ClaimName]
    device_name: str
    """A template such as `thermo-{serial}`; see `broker.core.naming`."""
    allowed_keys: frozenset[KeyType]
    certificate_lifetime: timedelta
    quota: int
    """How many devices the group may hold."""
    serials: Serials = Serials.LISTED
    reprovision: Reprovision = Reprovision.REFUSE
    devices: int = 0
    """How many it holds; kept by the registry."""
    rotation_key: RotationKey = RotationKey.NEW
    rotation_grace: timedelta = timedelta(hours=1)
    """How long a certificate is still good after a renewed one has taken its place."""
    recover_within: timedelta = timedelta(days=30)
    """For how long after its end a certificate's key still gets a new one; 0 for never."""


@dataclass(frozen=True)
class Enrollment:
    """One line of a group's allow-list: this serial number may claim, once."""

    group: GroupName
    serial: SerialNumber
    imported_at: datetime


@dataclass(frozen=True)
class Device:
    """A device by its name; its serial number is unique within its group."""

    id: DeviceId
    group: GroupName
    serial: SerialNumber
    state: DeviceState
    registered_at: datetime
    parameters: dict[str, str] = field(default_factory=dict)
    activated_at: datetime | None = None


@dataclass(frozen=True)
class Certificate:
    """An operational certificate and where it stands."""

    serial: CertificateSerial
    device_id: DeviceId
    state: CertificateState
    claim_name: ClaimName | None
    """The claim certificate through which it was asked for; none when it was renewed."""
    key_sha256: Fingerprint
    certificate_sha256: Fingerprint
    not_before: datetime
    not_after: datetime
    pem: str
    confirm_by: datetime
    confirmed_at: datetime | None = None
    revoked_at: datetime | None = None
    revoked_for: "RevocationReason | None" = None
    held_at: datetime | None = None
    """Since when its device's suspension keeps it out; none when it doesn't."""
    rotation_order: int | None = None
    """The version of the `RotationOrder` for which it was asked; none when it wasn't for one."""
    grace_until: datetime | None = None
    """When it's to be revoked, once another has superseded it."""
    recovery_approved_until: datetime | None = None
    """Until when an operator lets its key ask for a successor, whatever the group's window."""
    generation: int = FIRST_GENERATION
    """Which operational authority issued it."""

    def is_live(self, now: datetime) -> bool:
        """Whether a broker should let it in at `now`."""
        is_out = self.state is CertificateState.REVOKED or self.held_at is not None
        is_over = self.grace_until is not None and now >= self.grace_until
        return not is_out and not is_over and now < self.not_after


def has_expired(device: Device, certificates: Iterable[Certificate], now: datetime) -> bool:
    """Whether it's a member whose certificates let it in no more, because the one that it proved
    has expired.

    Args:
        certificates: all of the device's.
    """
    held = list(certificates)
    is_member = device.state in (DeviceState.ACTIVE, DeviceState.ROTATING)
    was_proven = any(each.state is CertificateState.ACTIVE for each in held)
    return is_member and was_proven and not any(each.is_live(now) for each in held)


class RevocationReason(StrEnum):
    """Why a certificate is on a CRL; each has its reason code there (RFC 5280, 5.3.1)."""

    NEVER_CONFIRMED = "never_confirmed"
    REPLACED = "replaced"
    OPERATOR = "operator"
    RETIRED = "retired"
    SUPERSEDED = "superseded"
    """The device has proven a renewed one, and the time of grace is over."""
    ABANDONED = "abandoned"
    """Its authority was replaced, and the device hadn't moved to the next."""
    SUSPENDED = "suspended"
    """Not revoked, but held: it leaves the CRL when its device is resumed."""


@dataclass(frozen=True)
class LockOut:
    """What the fleet's broker owes to an act on a device, and how far that has got.

    The act puts the device out, or (RESUME) lets it in again. It is kept with the act's own
    transaction, so that a broker that is down, or a service that is killed, completes it later.
    """

    id: str
    device_id: DeviceId
    act: DeviceInput
    serials: tuple[CertificateSerial, ...]
    """The certificates that it put on the CRL, or took off."""
    requested_at: datetime
    crl_wanted: int
    """The value of the registry's CRL counter that the CRL in force must have reached."""
    reason: str | None = None
    """In the operator's words."""
    crl_at: datetime | None = None
    """When a CRL that covers it came into force."""
    disconnected_at: datetime | None = None
    """When the live connection had been ended."""
    ended_at: datetime | None = None
    """When there was nothing more to do, or a later act took its place."""

    @property
    def is_complete(self) -> bool:
        """Whether a broker refuses the device (or admits it again) and no connection is left."""
        has_gone = self.disconnected_at is not None or self.act is DeviceInput.RESUME
        return self.crl_at is not None and has_gone


class EventKind(StrEnum):
    """What an audit event is about."""

    CLAIM_ACCEPTED = "claim.accepted"
    CLAIM_REPEATED = "claim.repeated"
    CLAIM_REFUSED = "claim.refused"
    REQUEST_REFUSED = "request.refused"
    DEVICE_ACTIVE = "device.active"
    DEVICE_SUSPENDED = "device.suspended"
    DEVICE_RESUMED = "device.resumed"
    DEVICE_REVOKED = "device.revoked"
    DEVICE_RECLAIMED = "device.reclaimed"
    DEVICE_RETIRED = "device.retired"
    DEVICE_LOCKED_OUT = "device.locked_out"
    DEVICE_LET_IN = "device.let_in"
    RENEWAL_ACCEPTED = "renewal.accepted"
    RENEWAL_REPEATED = "renewal.repeated"
    RECOVERY_ACCEPTED = "recovery.accepted"
    RECOVERY_REPEATED = "recovery.repeated"
    RECOVERY_APPROVED = "recovery.approved"
    CERTIFICATE_SUPERSEDED = "certificate.superseded"
    CERTIFICATE_REVOKED = "certificate.revoked"
    ROTATION_STARTED = "rotation.started"
    ROTATION_PAUSED = "rotation.paused"
    ROTATION_RESUMED = "rotation.resumed"
    ROTATION_CANCELLED = "rotation.cancelled"
    ROTATION_DONE = "rotation.done"
    ROTATION_ORDERED = "rotation.ordered"
    ROTATION_WITHDRAWN = "rotation.withdrawn"
    CA_ROLLOVER = "ca.rollover"
    TRUST_BUNDLE_PUBLISHED = "trust_bundle.published"
    CLAIM_CERTIFICATE_CREATED = "claim_certificate.created"
    CLAIM_CERTIFICATE_REVOKED = "claim_certificate.revoked"
    CLAIM_CERTIFICATE_ALARM = "claim_certificate.alarm"
    GROUP_APPLIED = "group.applied"
    ENROLLMENTS_IMPORTED = "enrollments.imported"
    ENROLLMENTS_REMOVED = "enrollments.removed"
    CRL_PUBLISHED = "crl.published"
    CRL_REPAIRED = "crl.repaired"
    ROLLOUT_STARTED = "rollout.started"
    ROLLOUT_RELEASED = "rollout.released"
    ROLLOUT_PAUSED = "rollout.paused"
    ROLLOUT_RESUMED = "rollout.resumed"
    ROLLOUT_ABORTED = "rollout.aborted"
    ROLLOUT_CANCELLED = "rollout.cancelled"
    ROLLOUT_RETRIED = "rollout.retried"
    ROLLOUT_DONE = "rollout.done"
    UPDATE_INSTALLED = "update.installed"
    UPDATE_ROLLED_BACK = "update.rolled_back"
    UPDATE_REFUSED = "update.refused"
    UPDATE_CANCELLED = "update.cancelled"
    SERVICE_STARTED = "service.started"
    AUDIT_GAP = "audit.gap"


@dataclass(frozen=True)
class Event:
    """One line of the audit log: what was decided, about whom, and why."""

    at: datetime
    kind: EventKind
    device_id: str | None = None
    serial_number: str | None = None
    claim_name: str | None = None
    client_id: str | None = None
    group: str | None = None
    code: str | None = None
    """The exact refusal code, or the revocation's reason."""
    detail: str | None = None
    repeated: int = 1
    """How many times the same thing happened in the time that this line covers."""
    id: int | None = None
    """Set by the registry, rising with each event."""


@dataclass(frozen=True)
class Reply:
    """An answer that was committed with its decision and waits to be published."""

    id: str
    zone: Zone
    topic: str
    payload: bytes
    created_at: datetime


@dataclass(frozen=True)
class Retained:
    """What a topic of the fleet zone is to retain; the broker's memory of it is a cache."""

    topic: str
    payload: bytes
    """Empty when the topic is to retain nothing any more."""
    stamp: int
    """Rises with every change of anything retained; what changed together shares one."""
