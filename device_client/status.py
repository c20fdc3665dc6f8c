"""How far this device has come and what stands in its way: `muster-device status`."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from broker.protocol.messages import Endpoint
from device_client import keystore, status_note
from device_client.enrollment import Enrollment
from device_client.identity import Identity, Origin
from device_client.keystore import Keystore
from device_client.schedule import planned
from device_client.status_note import Activity, LastError, Note
from device_client.timekeeping import CLOCK_FILE, Standing, Timekeeper
from device_client.trust import TrustStore


class Membership(StrEnum):
    """How far this device has come."""

    NO_BUNDLE = "no_bundle"
    UNCLAIMED = "unclaimed"
    UNCONFIRMED = "unconfirmed"
    CONFIRMED = "confirmed"


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


def report(directory: Path) -> Report:
    """What the state directory says, while an agent may be at work in it."""
    store = keystore.looked_at(directory)
    note = status_note.read(directory)
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


def _of_member(report: Report, identity: Identity, store: Keystore, note: Note) -> Report:
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
