"""What a working agent notes of itself, for `muster-device status`."""

import logging
import threading
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from broker.protocol import codec
from broker.protocol.codes import Refused
from device_client.errors import DeviceError
from device_client.timekeeping import Standing

log = logging.getLogger(__name__)

_FILE: Final = "status.json"


class Activity(StrEnum):
    """What a working agent is at."""

    IDLE = "idle"
    CLAIMING = "claiming"
    CONNECTING = "connecting"
    RECOVERING = "recovering"
    ONLINE = "online"


@dataclass(frozen=True, kw_only=True)
class LastError:
    """What went wrong last and hasn't gone right since."""

    code: str
    message: str
    remedy: str
    at: datetime


@dataclass(frozen=True)
class Note:
    """What is on the disk."""

    activity: Activity = Activity.IDLE
    last_error: LastError | None = None
    renewal_due: datetime | None = None
    clock: Standing = Standing.BELIEVED


class StatusFile:
    """A note on the disk for people, rewritten when something changes; losing it is no harm.

    The methods block on the disk: call them in a thread. A disk that is full is only logged.
    """

    def __init__(self, directory: Path) -> None:
        """`directory` is the keystore's."""
        self._path = directory / _FILE
        self._note = read(directory)
        self._lock = threading.Lock()

    def note(self, activity: Activity, clock: Standing | None = None) -> None:
        """The agent is at `activity` now; being online ends what was wrong before.

        `clock` is what it thinks of its clock, if it has thought again.
        """
        with self._lock:
            error = None if activity is Activity.ONLINE else self._note.last_error
            clock = clock or self._note.clock
            self._write(replace(self._note, activity=activity, last_error=error, clock=clock))

    def note_plan(self, renewal_due: datetime, clock: Standing) -> None:
        """When the certificate is to be renewed, and what the agent thinks of the clock."""
        with self._lock:
            self._write(replace(self._note, renewal_due=renewal_due, clock=clock))

    def note_error(self, error: DeviceError, at: datetime) -> None:
        """Something went wrong. The same again isn't written again: flash wears out."""
        new = LastError(code=error.stable_code, message=str(error), remedy=error.remedy, at=at)
        with self._lock:
            last = self._note.last_error
            is_same = last is not None and (last.code, last.message) == (new.code, new.message)
            self._write(replace(self._note, last_error=last if is_same else new))

    def _write(self, note: Note) -> None:
        """Under the lock: a caller that is cancelled leaves its thread at work behind."""
        if note == self._note:
            return
        self._note = note
        temporary = self._path.with_name(".status.json.new")
        try:
            temporary.write_bytes(codec.encode(note))
            temporary.replace(self._path)
        except OSError as error:
            log.warning("the status can't be written: %s", error)


def read(directory: Path) -> Note:
    """What an agent noted last in its state directory; nothing where it can't be read."""
    try:
        return codec.decode((directory / _FILE).read_bytes(), Note)
    except (OSError, Refused):
        return Note()
