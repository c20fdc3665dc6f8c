"""The device's durable state, one directory that belongs to one agent at a time.

    enrollment.json              the remembered claim: bundle, serial number, parameters
    pending.json                 a key that was, or may have been, sent to the service
    credentials/<n>/             a slot: key.pem, chain.pem, trust.pem, identity.json
    current -> credentials/<n>   the slot in use

A power cut at any instant leaves a state from which the agent ends up with one identity, and with
the key that the service may have seen already. Slots are never changed in place (but for the note
that one was confirmed), so a later certificate can be tried while the earlier one still works.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.names import SerialNumber
from device_client import durable, enrollment, identity, keys
from device_client.answers import Grant
from device_client.enrollment import Enrollment
from device_client.errors import StateLocked, StateUnusable
from device_client.identity import Identity, SlotCorrupt
from device_client.keys import KeyType, PrivateKey

log = logging.getLogger(__name__)

_SLOTS: Final = "credentials"
_CURRENT: Final = "current"
_LOCK_TRIES = 4


@dataclass(frozen=True)
class PendingKey:
    """A key on the disk that a claim for `serial` is made with."""

    serial: SerialNumber
    key: PrivateKey


@dataclass(frozen=True)
class _PendingRecord:
    serial: str
    private_key: str


class Keystore:
    """The state directory, locked and put in order; every method leaves the disk consistent.

    The methods block on the disk: call them in a thread.
    """

    def __init__(self, directory: Path) -> None:
        """Only `opened` and `looked_at` make one."""
        self._directory = directory
        self._slots = directory / _SLOTS

    def remember(self, claim: Enrollment) -> None:
        """Keeps what this device claims with, for a restart without arguments."""
        content = enrollment.to_bytes(claim)
        path = self._directory / "enrollment.json"
        if not path.exists() or path.read_bytes() != content:
            durable.replace_file(path, content)

    def enrollment(self) -> Enrollment | None:
        """What this device claims with, or none when it was never told.

        Raises:
            StateUnusable: the file was damaged.
        """
        try:
            return enrollment.from_bytes((self._directory / "enrollment.json").read_bytes())
        except FileNotFoundError:
            return None

    def enrollment_if_readable(self) -> Enrollment | None:
        """What this device claims with, or none when that isn't known any more."""
        try:
            return self.enrollment()
        except StateUnusable as error:
            log.warning("%s", error)
            return None

    def current(self) -> Identity | None:
        """The identity in use, or none."""
        try:
            return identity.read_slot(self._slots / self._current.readlink().name)
        except (OSError, SlotCorrupt):
            return None

    def key_for_claim(self, serial: SerialNumber, key_type: KeyType) -> PendingKey:
        """The key to claim with, on the disk: a kept one before a new one.

        A key that was made for this serial number stays, whatever its type, because the service
        may have certified it in an answer that never came.
        """
        pending = self._pending()
        if pending is not None and pending.serial == serial:
            return pending
        current = self.current()
        if pending is None and current is not None and current.serial == serial:
            return PendingKey(serial, keys.from_pem(identity.read_key(current.directory)))
        if current is None:
            pending = self._rescued_key(serial)
        return pending or self.new_key(serial, key_type)

    def new_key(self, serial: SerialNumber, key_type: KeyType) -> PendingKey:
        """A fresh key on the disk, in the place of the one pending."""
        key = keys.generate(key_type)
        self._write_pending(serial, keys.to_pem(key))
        log.info("made a new %s key", key_type)
        return PendingKey(serial, key)

    def install(self, grant: Grant, pending: PendingKey) -> Identity:
        """Makes the grant the identity in use; the slot it replaces stays until it's done."""
        number = max(self._numbers(), default=0) + 1
        slot = self._slots / str(number)
        filling = durable.temporary_directory(slot)
        identity.write_slot(filling, grant, pending.serial, keys.to_pem(pending.key))
        durable.move(filling, slot)
        durable.replace_link(self._current, f"{_SLOTS}/{number}")
        durable.remove(self._pending_file)
        self._remove_slots_except(number)
        return identity.read_slot(slot)

    def confirm(self, which: Identity, at: datetime) -> Identity:
        """Notes that the service accepted the proof of this identity's certificate."""
        identity.record_confirmation(which, at)
        return identity.read_slot(which.directory)

    def discard_certificate(self, which: Identity) -> None:
        """No identity in use; its key is kept for the next claim."""
        self._write_pending(which.serial, identity.read_key(which.directory))
        durable.remove(self._current)
        durable.sync_directory(self._directory)
        self._remove_slots_except(None)

    @property
    def _current(self) -> Path:
        return self._directory / _CURRENT

    @property
    def _pending_file(self) -> Path:
        return self._directory / "pending.json"

    def _pending(self) -> PendingKey | None:
        try:
            record = codec.decode(self._pending_file.read_bytes(), _PendingRecord)
            return PendingKey(SerialNumber(record.serial), keys.from_pem(record.private_key))
        except FileNotFoundError:
            return None
        except (Refused, ValueError):
            log.warning("the pending key is damaged: a new one will be made")
            return None

    def _write_pending(self, serial: SerialNumber, pem: str) -> None:
        durable.replace_file(self._pending_file, codec.encode(_PendingRecord(serial, pem)))

    def _numbers(self) -> list[int]:
        return sorted(int(path.name) for path in self._slots.iterdir() if path.name.isdecimal())

    def _remove_slots_except(self, kept: int | None) -> None:
        for number in self._numbers():
            if number != kept:
                durable.remove(self._slots / str(number))

    def _put_in_order(self) -> None:
        """Finishes or undoes what a cut interrupted."""
        durable.make_directory(self._slots)
        durable.remove_leftovers(self._directory)
        durable.remove_leftovers(self._slots)
        current = self.current() or self._newest_whole()
        if current is None:
            claim = self.enrollment_if_readable()
            if claim is not None and self._pending() is None:
                self._rescued_key(SerialNumber(claim.serial))
            self._remove_slots_except(None)
            durable.remove(self._current)
            return
        number = int(current.directory.name)
        if self.current() is None:
            durable.replace_link(self._current, f"{_SLOTS}/{number}")
        pending = self._pending()
        if pending and keys.fingerprint(pending.key.public_key()) == current.key_sha256:
            durable.remove(self._pending_file)
        self._remove_slots_except(number)

    def _newest_whole(self) -> Identity | None:
        """The identity to use when `current` is missing or points at a damaged slot."""
        for number in reversed(self._numbers()):
            try:
                return identity.read_slot(self._slots / str(number))
            except SlotCorrupt as error:
                log.warning("a stored identity is damaged: %s", error)
        return None

    def _rescued_key(self, serial: SerialNumber) -> PendingKey | None:
        """The key of a damaged slot: with it the service gives the same identity again."""
        for number in reversed(self._numbers()):
            with suppress(SlotCorrupt):
                pem = identity.read_key(self._slots / str(number))
                self._write_pending(serial, pem)
                return PendingKey(serial, keys.from_pem(pem))
        return None


@contextmanager
def opened(directory: Path) -> Iterator[Keystore]:
    """The keystore in `directory`, made where it's missing, locked until the end and in order.

    Raises:
        StateLocked: another agent has it.
        StateUnusable: it can't be read or written.
    """
    try:
        durable.make_directory(directory)
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        _lock(lock, directory)
        keystore = Keystore(directory)
        try:
            keystore._put_in_order()
        except OSError as error:
            raise _unusable(directory, error) from error
        yield keystore
    finally:
        os.close(lock)


def looked_at(directory: Path) -> Keystore:
    """The keystore for reading only, while an agent may be at work in it."""
    return Keystore(directory)


def is_locked(directory: Path) -> bool:
    """Whether an agent is at work in `directory`."""
    try:
        lock = os.open(directory / "lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _lock(descriptor: int, directory: Path) -> None:
    for _ in range(_LOCK_TRIES):
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(0.05)  # `is_locked` holds it for an instant
    raise StateLocked(
        f"Another agent is at work in {directory}.",
        "Stop it first, or give this one a state directory of its own with --state.",
    )


def _unusable(directory: Path, error: OSError) -> StateUnusable:
    return StateUnusable(
        f"The state directory {directory} can't be used: {error.strerror or error}.",
        "Give one that this user can write with --state, on a disk with room.",
    )
