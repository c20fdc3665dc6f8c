"""The device's durable state, one directory that belongs to one agent at a time.

    enrollment.json              the remembered claim: bundle, serial number, parameters
    pending.json                 a key that was, or may have been, sent to claim
    credentials/<n>/             a slot: key.pem, chain.pem, trust.pem, identity.json
    current -> credentials/<n>   the slot in use
    renewal.json, next           what is to follow it: see `succession`

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
from device_client.identity import Identity, Origin
from device_client.keys import KeyType, PrivateKey
from device_client.slots import Slots
from device_client.succession import CURRENT, Succession

log = logging.getLogger(__name__)

_LOCK_TRIES: Final = 4


@dataclass(frozen=True)
class PendingKey:
    """A key on the disk that a claim for `serial` is made with."""

    serial: SerialNumber
    key: PrivateKey
    made_at: datetime | None = None
    """By this device's own clock, right or wrong; none when that isn't known."""


@dataclass(frozen=True)
class _PendingRecord:
    serial: str
    private_key: str
    made_at: datetime | None = None


class Keystore:
    """The state directory, locked and put in order; every method leaves the disk consistent.

    The methods block on the disk: call them in a thread.
    """

    def __init__(self, directory: Path) -> None:
        """Only `opened` and `looked_at` make one."""
        self.directory = directory
        self._slots = Slots(directory)
        self.succession = Succession(directory, self._slots)

    def remember(self, claim: Enrollment) -> None:
        """Keeps what this device claims with, for a restart without arguments."""
        content = enrollment.to_bytes(claim)
        path = self.directory / "enrollment.json"
        if not path.exists() or path.read_bytes() != content:
            durable.replace_file(path, content)

    def enrollment(self) -> Enrollment | None:
        """What this device claims with, or none when it was never told.

        Raises:
            StateUnusable: the file was damaged.
        """
        try:
            return enrollment.from_bytes((self.directory / "enrollment.json").read_bytes())
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
        return self._slots.named(CURRENT)

    def key_for_claim(
        self, serial: SerialNumber, key_type: KeyType, at: datetime | None = None
    ) -> PendingKey:
        """The key to claim with, on the disk: a kept one before a new one.

        A key that was made for this serial number stays, whatever its type, because the service
        may have certified it in an answer that never came. `at` is this device's clock.
        """
        pending = self._pending()
        if pending is not None and pending.serial == serial:
            return pending
        current = self.current()
        if pending is None and current is not None and current.serial == serial:
            return PendingKey(serial, keys.from_pem(identity.read_key(current.directory)))
        if current is None:
            pending = self._rescued_key(serial)
        return pending or self.new_key(serial, key_type, at)

    def new_key(
        self, serial: SerialNumber, key_type: KeyType, at: datetime | None = None
    ) -> PendingKey:
        """A fresh key on the disk, in the place of the one pending."""
        key = keys.generate(key_type)
        self._write_pending(serial, keys.to_pem(key), at)
        log.info("made a new %s key", key_type)
        return PendingKey(serial, key, at)

    def install(self, grant: Grant, pending: PendingKey) -> Identity:
        """Makes the grant the identity in use; the slot it replaces stays until it's done."""
        pem = keys.to_pem(pending.key)
        slot = self._slots.fill(grant, pending.serial, pem, Origin.CLAIM)
        self._slots.name(CURRENT, slot)
        durable.remove(self._pending_file)
        self.succession.clear()
        self._slots.keep_only([slot])
        return slot

    def confirm(self, which: Identity, at: datetime) -> Identity:
        """Notes that the service accepted the proof of this identity's certificate."""
        identity.record_confirmation(which, at)
        return identity.read_slot(which.directory)

    def discard_certificate(self, which: Identity) -> None:
        """No identity in use; its key is kept for the next claim."""
        self._write_pending(which.serial, identity.read_key(which.directory))
        self._slots.unname(CURRENT)
        durable.sync_directory(self.directory)
        self.succession.clear()
        self._slots.keep_only([])

    @property
    def _pending_file(self) -> Path:
        return self.directory / "pending.json"

    def _pending(self) -> PendingKey | None:
        try:
            record = codec.decode(self._pending_file.read_bytes(), _PendingRecord)
            key = keys.from_pem(record.private_key)
            return PendingKey(SerialNumber(record.serial), key, record.made_at)
        except FileNotFoundError:
            return None
        except (Refused, ValueError):
            log.warning("the pending key is damaged: a new one will be made")
            return None

    def _write_pending(self, serial: SerialNumber, pem: str, at: datetime | None = None) -> None:
        durable.replace_file(self._pending_file, codec.encode(_PendingRecord(serial, pem, at)))

    def _put_in_order(self) -> None:
        """Finishes or undoes what a cut interrupted."""
        self._slots.tidy()
        durable.remove_leftovers(self.directory)
        named = self.current()
        current = named or self.succession.successor() or self._slots.best()
        if current is None:
            self._begin_anew()
            return
        if named is None:
            self._slots.name(CURRENT, current)
        current = self.succession.put_in_order(current)
        pending = self._pending()
        if pending and keys.fingerprint(pending.key.public_key()) == current.key_sha256:
            durable.remove(self._pending_file)

    def _begin_anew(self) -> None:
        """No slot is whole: what counts is the key, with which the service knows this device."""
        claim = self.enrollment_if_readable()
        if claim is not None and self._pending() is None:
            self._rescued_key(SerialNumber(claim.serial))
        self.succession.clear()
        self._slots.keep_only([])
        self._slots.unname(CURRENT)

    def _rescued_key(self, serial: SerialNumber) -> PendingKey | None:
        """The key of a damaged slot: with it the service gives the same identity again."""
        for pem in self._slots.readable_keys():
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
