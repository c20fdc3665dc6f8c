"""What the agent does and what stands in its way, for `muster-device status`."""

import logging
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import Endpoint
from device_client import keystore
from device_client.errors import DeviceError

log = logging.getLogger(__name__)


class Activity(StrEnum):
    """What a working agent is at."""

    IDLE = "idle"
    CLAIMING = "claiming"
    CONNECTING = "connecting"
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
class Report:
    """The whole answer of `muster-device status`."""

    membership: Membership
    activity: Activity
    serial: str | None = None
    device_id: str | None = None
    certificate_serial: str | None = None
    not_after: datetime | None = None
    fleet: Endpoint | None = None
    last_error: LastError | None = None


@dataclass(frozen=True)
class _Note:
    activity: Activity = Activity.IDLE
    last_error: LastError | None = None


class StatusFile:
    """A note on the disk for people, rewritten when something changes; losing it is no harm."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the keystore's."""
        self._path = directory / "status.json"
        self._note = _read(self._path)

    def note(self, activity: Activity) -> None:
        """The agent is at `activity` now; being online ends what was wrong before."""
        error = None if activity is Activity.ONLINE else self._note.last_error
        self._write(_Note(activity, error))

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
    serial = claim.serial if claim else None
    identity = store.current()
    if identity is None:
        membership = Membership.UNCLAIMED if claim else Membership.NO_BUNDLE
        return Report(
            membership=membership,
            activity=note.activity,
            serial=serial,
            last_error=note.last_error,
        )
    return Report(
        membership=Membership.CONFIRMED if identity.confirmed_at else Membership.UNCONFIRMED,
        activity=note.activity,
        serial=identity.serial,
        device_id=identity.device_id,
        certificate_serial=identity.certificate_serial,
        not_after=identity.not_after,
        fleet=identity.fleet,
        last_error=note.last_error,
    )


def _read(path: Path) -> _Note:
    try:
        return codec.decode(path.read_bytes(), _Note)
    except (OSError, Refused):
        return _Note()
