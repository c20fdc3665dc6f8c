"""What the agent does and what stands in its way, for `muster-device status`."""

import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import Endpoint
from device_client import keystore
from device_client.enrollment import Enrollment
from device_client.errors import DeviceError
from device_client.identity import Identity, Origin
from device_client.keystore import Keystore
from device_client.schedule import planned
from device_client.timekeeping import CLOCK_FILE, Standing, Timekeeper
from device_client.trust import TrustStore

log = logging.getLogger(__name__)


class Activity(StrEnum):
    """What a working agent is at."""

    IDLE = "idle"
    CLAIMING = "claiming"
    CONNECTING = "connecting"
    RECOVERING = "recovering"
    ONLINE = "online"


class Membership(StrEnum):
    """How far this device has come."""

    NO_BUNDLE = "no_bundle"
    UNCLAIMED = "unclaimed"
    UNCONFIRMED = "unconfirmed"
    CONFIRMED = "confirmed"


@dataclass(frozen=True, kw_only=True)
class LastError:
    """What went wrong last and hasn't gone right since."""

    code: str
    message: str
    remedy: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Software:
    """What the updater says; none where the device wasn't told what it is."""

    model: str
    hw_rev: str | None
    running: dict[str, str]
    """By component, the version that was committed."""
    factory: tuple[str, ...]
    """The components that run what came from the factory."""
    security_counter: int
    support_until: datetime | None
    """When it ends for the first of what runs."""
    vulnerability_contacts: tuple[str, ...]
    """Where to report a weakness of what runs."""
    rollout: str | None
    """Of the assignment that is at work; none when nothing is pending."""
    stage: str | None
    coming: tuple[str, ...]
    switch_at: datetime | None
    """When it's switched, as far as that is a matter of time; none before it's ready."""
    deadline: datetime | None
    window: str | None
    expires: datetime | None
    """Not switched after that, unless the service says it again."""
    failures: int
    """Tries in vain so far."""
    unsent_reports: int
    hosts: tuple[str, ...]
    """Whom it asks for images over HTTP."""
    has_root: bool
    """Whether it knows by whom updates are signed; without, it takes none."""
    refusal: LastError | None


@dataclass(frozen=True, kw_only=True)
class Report:
    """The whole answer of `muster-device status`."""

    membership: Membership
    activity: Activity
    serial: str | None = None
    device_id: str | None = None
    certificate_serial: str | None = None
    not_after: datetime | None = None
    fleet: Endpoint | None = None
    origin: Origin | None = None
    """How the certificate in use was come by, at `confirmed_at`."""
    confirmed_at: datetime | None = None
    renewal_due: datetime | None = None
    successor: str | None = None
    """The serial number of a granted certificate that hasn't been proven yet."""
    is_recovering: bool = False
    """Whether the certificate has expired and the agent asks for its successor."""
    clock: Standing = Standing.BELIEVED
    """What the agent thought of it last."""
    time: datetime
    """The best guess at it."""
    not_before: datetime
    """It certainly isn't earlier, by what is proven."""
    trust_version: int | None = None
    """Of the trust bundle by which brokers are known."""
    last_error: LastError | None = None
    software: Software | None = None


@dataclass(frozen=True)
class _Note:
    activity: Activity = Activity.IDLE
    last_error: LastError | None = None
    renewal_due: datetime | None = None
    clock: Standing = Standing.BELIEVED


class StatusFile:
    """A note on the disk for people, rewritten when something changes; losing it is no harm."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the keystore's."""
        self._path = directory / "status.json"
        self._note = _read(self._path)

    def note(self, activity: Activity, clock: Standing | None = None) -> None:
        """The agent is at `activity` now; being online ends what was wrong before.

        `clock` is what it thinks of its clock, if it has thought again.
        """
        error = None if activity is Activity.ONLINE else self._note.last_error
        self._write(
            replace(
                self._note,
                activity=activity,
                last_error=error,
                clock=clock or self._note.clock,
            )
        )

    def note_plan(self, renewal_due: datetime, clock: Standing) -> None:
        """When the certificate is to be renewed, and what the agent thinks of the clock."""
        self._write(replace(self._note, renewal_due=renewal_due, clock=clock))

    def note_error(self, error: DeviceError, at: datetime) -> None:
        """Something went wrong. The same again isn't written again: flash wears out."""
        last = self._note.last_error
        if last is None or (last.code, last.message) != (error.stable_code, str(error)):
            last = LastError(code=error.stable_code, message=str(error), remedy=error.remedy, at=at)
        self._write(replace(self._note, last_error=last))

    def _write(self, note: _Note) -> None:
        if note == self._note:
            return
        self._note = note
        temporary = self._path.with_name(".status.json.new")
        try:
            temporary.write_bytes(codec.encode(note))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("the status can't be written: %s", error)


def report(directory: Path) -> Report:
    """What the state directory says, while an agent may be at work in it."""
    store = keystore.looked_at(directory)
    note = _read(directory / "status.json")
    if not keystore.is_locked(directory):
        note = replace(note, activity=Activity.IDLE)
    claim = store.enrollment_if_readable()
    identity = store.current()
    timekeeper = Timekeeper(directory / CLOCK_FILE, lambda: datetime.now(UTC))
    timekeeper.load()
    whole = Report(
        membership=Membership.UNCLAIMED if claim else Membership.NO_BUNDLE,
        activity=note.activity,
        serial=claim.serial if claim else None,
        clock=note.clock,
        time=timekeeper.now(),
        not_before=timekeeper.floor(),
        last_error=note.last_error,
        software=_software(directory, timekeeper.now(), claim, identity),
    )
    return whole if identity is None else _of_member(whole, identity, store, note)


def _software(
    directory: Path, now: datetime, claim: Enrollment | None, identity: Identity | None
) -> Software | None:
    """Loaded only where there are updates, like all that has to do with them."""
    if not (directory / "update").is_dir():
        return None
    from device_client.update.summary import software

    return software(
        directory / "update",
        now,
        claim.bundle if claim else None,
        identity.fleet.host if identity else None,
    )


def _of_member(report: Report, identity: Identity, store: Keystore, note: _Note) -> Report:
    successor = store.succession.successor()
    return replace(
        report,
        membership=Membership.CONFIRMED if identity.confirmed_at else Membership.UNCONFIRMED,
        serial=identity.serial,
        device_id=identity.device_id,
        certificate_serial=identity.certificate_serial,
        not_after=identity.not_after,
        fleet=identity.fleet,
        trust_version=TrustStore(store.directory).newest(identity.trust_bundle).version,
        origin=identity.origin,
        confirmed_at=identity.confirmed_at,
        renewal_due=note.renewal_due or planned(identity),
        successor=successor.certificate_serial if successor else None,
        is_recovering=note.activity is Activity.RECOVERING,
    )


def _read(path: Path) -> _Note:
    try:
        return codec.decode(path.read_bytes(), _Note)
    except (OSError, Refused):
        return _Note()
