"""What is remembered: transactions that read, and those that write."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from broker.core.claim_policy import ClaimContext
from broker.core.lifecycle import DeviceState
from broker.core.records import (
    Certificate,
    ClaimCertificate,
    Device,
    Enrollment,
    EnrollmentGroup,
    Event,
    EventKind,
    LockOut,
    Reply,
    Retained,
)
from broker.ports.audit import AuditReads, AuditWrites
from broker.ports.authorities import (
    Revocation,
)
from broker.ports.rollouts import RolloutReads, RolloutWrites
from broker.ports.rotation import RotationReads, RotationWrites
from broker.protocol.names import (
    CertificateSerial,
    ClaimName,
    DeviceId,
    Fingerprint,
    GroupName,
    SerialNumber,
)
from broker.protocol.zones import Zone

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class DeviceFilter:
    """Which devices to list; what is none doesn't narrow. Ordered by id, paged by `after`."""

    state: DeviceState | None = None
    group: GroupName | None = None
    claim_name: ClaimName | None = None
    """Those that became, or may become, members through this claim certificate."""
    after: DeviceId | None = None
    limit: int = 1000


@dataclass(frozen=True)
class EventFilter:
    """Which events to list; what is none doesn't narrow. Newest first, paged by `before_id`."""

    device_id: str | None = None
    serial_number: str | None = None
    claim_name: str | None = None
    kind: EventKind | None = None
    before_id: int | None = None
    limit: int = 100


@dataclass(frozen=True)
class EnrollmentFilter:
    """Which lines of a group's allow-list to list. Ordered by serial number, paged by `after`."""

    group: GroupName
    serial: SerialNumber | None = None
    after: SerialNumber | None = None
    limit: int = 1000


class ReadTransaction(AuditReads, RolloutReads, RotationReads, Protocol):
    """A consistent view of the registry."""

    def claim_context(
        self, claim_name: ClaimName, serial: SerialNumber, key: Fingerprint
    ) -> ClaimContext: ...
    def claim_certificate(self, name: ClaimName) -> ClaimCertificate | None: ...
    def claim_certificates(self) -> list[ClaimCertificate]: ...
    def group(self, name: GroupName) -> EnrollmentGroup | None: ...
    def group_of_claim(self, name: ClaimName) -> GroupName | None: ...
    def groups(self) -> list[EnrollmentGroup]: ...
    def enrollments(self, wanted: EnrollmentFilter) -> list[Enrollment]: ...
    def count_enrollments(self, group: GroupName) -> int: ...
    def enrolled(self, group: GroupName, serials: Sequence[SerialNumber]) -> set[SerialNumber]:
        """Those of `serials` that are on the group's allow-list."""

    def claimed(self, group: GroupName, serials: Sequence[SerialNumber]) -> set[SerialNumber]:
        """Those of `serials` that a device of the group has, whatever its state."""

    def device(self, device_id: DeviceId) -> Device | None: ...
    def devices(self, wanted: DeviceFilter) -> list[Device]: ...
    def count_devices(self, wanted: DeviceFilter | None = None) -> dict[DeviceState, int]:
        """How many are in each state, of all or of those that `wanted` finds on all its pages."""

    def count_expired(self, now: datetime) -> int:
        """How many members only time keeps out: see `records.has_expired`."""

    def certificate_by_fingerprint(self, certificate: Fingerprint) -> Certificate | None: ...
    def certificate_by_serial(self, serial: CertificateSerial) -> Certificate | None: ...
    def certificates_of(self, device_ids: Sequence[DeviceId]) -> list[Certificate]:
        """All certificates of these devices, revoked ones too, oldest first."""

    def unconfirmed_before(self, moment: datetime, limit: int) -> list[Certificate]:
        """Certificates still ISSUED whose `confirm_by` is at or before `moment`, oldest first."""

    def superseded_before(self, moment: datetime, limit: int) -> list[Certificate]:
        """Certificates still SUPERSEDED whose `grace_until` is at or before `moment`, the one that
        has waited longest first."""

    def newest_of_key(self, key: Fingerprint) -> Certificate | None:
        """The newest certificate that was ever issued for the public key, whoever's it is."""

    def revocations(self, now: datetime) -> list[Revocation]:
        """Every revoked or held certificate that hasn't expired by `now`, for the CRL."""

    def lock_out(self, lock_out_id: str) -> LockOut | None: ...
    def lock_outs_of(self, device_id: DeviceId) -> list[LockOut]:
        """All that the device ever had, oldest first."""

    def waiting_lock_outs(self, limit: int) -> list[LockOut]:
        """Those that aren't complete and that no later act has ended: operators' acts first, then
        what can wait (`core.lock_out.CAN_WAIT`); of each the oldest first."""

    def open_lock_outs(self, limit: int) -> list[LockOut]:
        """Those that haven't ended, oldest first."""

    def pending_replies(self, limit: int, zone: Zone | None = None) -> list[Reply]:
        """Replies in the outbox, of one zone or of both, oldest first."""

    def retained(self, topic: str) -> Retained | None: ...
    def retained_after(self, stamp: int, topic: str, limit: int) -> list[Retained]:
        """What comes after (`stamp`, `topic`), ordered by both."""

    def events(self, wanted: EventFilter) -> list[Event]: ...
    def counter(self, name: str) -> int:
        """The counter's value; 0 when it was never raised."""


class WriteTransaction(ReadTransaction, AuditWrites, RolloutWrites, RotationWrites, Protocol):
    """A view that changes the registry; all of it is durable together, or none."""

    def save_claim_certificate(self, claim: ClaimCertificate) -> None:
        """Adds it, or replaces what has its name (all but its count of claims)."""

    def save_group(self, group: EnrollmentGroup) -> None:
        """Adds it, or replaces what has its name (all but its count of devices).

        Raises:
            RegistryConflict: another group lists one of its claim certificates.
        """

    def add_enrollments(self, enrollments: Iterable[Enrollment]) -> int:
        """Adds what isn't there yet; returns how many that were."""

    def remove_enrollments(self, group: GroupName, serials: Sequence[SerialNumber]) -> None:
        """Takes them off the group's allow-list; devices stay as they are."""

    def save_device(self, device: Device) -> None:
        """Adds it, or replaces what has its id.

        Raises:
            RegistryConflict: its serial number belongs to another device of its group.
        """

    def save_certificate(self, certificate: Certificate) -> None:
        """Adds it, or replaces what has its serial."""

    def save_lock_out(self, lock_out: LockOut) -> None:
        """Adds it, or replaces what has its id."""

    def count_claim(self, name: ClaimName, by: int) -> None:
        """Adds `by` to the claim certificate's count of claims, which never falls below 0."""

    def count_device(self, name: GroupName, by: int) -> None:
        """Adds `by` to the group's count of devices, which never falls below 0."""

    def add_event(self, event: Event) -> None: ...
    def add_reply(self, reply: Reply) -> None: ...
    def remove_replies(self, ids: Sequence[str]) -> None: ...
    def retain(self, messages: Mapping[str, bytes]) -> None:
        """Keeps each payload as what its topic is to retain, all of them under one new stamp.

        The service publishes them (`services/retained.py`), and again to a broker that forgot.
        What is kept already with the same payload isn't stamped anew.
        """

    def drop_tombstones(self, prefix: str, stamp: int, limit: int) -> int:
        """Forgets topics that begin with `prefix` and are to retain nothing, those with the lowest
        stamps first and none above `stamp`; how many. The counter "retained.floor" then says up to
        which stamp some are missing.
        """

    def raise_counter(self, name: str) -> int:
        """Adds one and returns the new value."""


class RegistryError(Exception):
    """The registry failed; nothing of the transaction was kept. `remedy` says what to do."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class RegistryConflict(RegistryError):
    """A rule that the registry keeps (something is unique) forbids the change."""


class Registry(Protocol):
    """The truth about the fleet: durable, with one writer.

    `work` is a plain function that runs in the registry's own thread. It may be run more than once:
    when the batch that it was in had to be undone, and when the connection broke at a commit, which
    may have been done all the same. So it changes nothing but the transaction; and run again after
    its own commit, it finds its traces (an id or a moment that was taken before, outside of it),
    returns what it returned, and changes nothing. A number may be left out by that, and a line that
    only says that something was done (a CRL, a start) may stand twice in the audit log.
    """

    async def write(self, work: Callable[[WriteTransaction], ResultT]) -> ResultT:
        """What `work` returns, once all that it wrote is durable.

        Raises:
            RegistryError: with code `registry_busy` when too much waits already, else the cause.
            Exception: whatever `work` raised; then nothing that it wrote is kept.
        """

    async def read(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        """What `work` returns on a consistent view."""
