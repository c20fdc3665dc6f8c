"""The identity that is to follow the one in use, from its key to its proof.

    renewal.json                 a key that was, or may have been, sent to renew or to recover
    next -> credentials/<n>      the granted slot, until it's proven or given up

The identity in use isn't touched before its successor has been proven, so at any instant there is
one to go on with.
"""

import logging
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from broker.protocol import codec
from broker.protocol.codes import Refused
from device_client import durable, identity, keys
from device_client.answers import Grant
from device_client.identity import Identity, Origin
from device_client.keys import KeyType, PrivateKey
from device_client.slots import Slots

log = logging.getLogger(__name__)

CURRENT: Final = "current"
_NEXT: Final = "next"


@dataclass(frozen=True)
class NextKey:
    """A key on the disk that the successor of an identity is asked for with."""

    key: PrivateKey
    made_at: datetime
    """By this device's own clock, right or wrong."""


@dataclass(frozen=True, kw_only=True)
class _Record:
    predecessor: str
    """SHA-256 of the certificate that is to be replaced."""
    private_key: str
    made_at: datetime


class Succession:
    """Part of the keystore; every method leaves the disk consistent, and blocks on it."""

    def __init__(self, directory: Path, slots: Slots) -> None:
        """`directory` is the state directory that the slots are in."""
        self._file = directory / "renewal.json"
        self._directory = directory
        self._slots = slots

    def successor(self) -> Identity | None:
        """The granted identity that hasn't been proven yet, or none."""
        return self._slots.named(_NEXT)

    def key_for(self, current: Identity, key_type: KeyType, at: datetime) -> NextKey:
        """The key to ask for the successor of `current` with: a kept one before a new one.

        The same key gets the same certificate, if the service has granted one in an answer that
        never came, whichever of two identities it was asked for with. `at` is this device's clock,
        for a new key.
        """
        kept = self._kept(current)
        if kept is not None:
            return kept
        key = keys.generate(key_type)
        record = _Record(
            predecessor=current.certificate_sha256, private_key=keys.to_pem(key), made_at=at
        )
        durable.replace_file(self._file, codec.encode(record))
        log.info("made a new %s key for the next certificate", key_type)
        return NextKey(key, at)

    def forget_key(self) -> None:
        """The next request is made with another key; a cut may undo it."""
        durable.remove(self._file)

    def stage(self, grant: Grant, current: Identity, key: NextKey, origin: Origin) -> Identity:
        """Makes the grant the successor of `current`, in the place of an earlier one.

        Only the one that the service saw proven last can recover: if that's the earlier successor,
        it's the identity in use before it is followed.
        """
        if origin is Origin.RECOVERY and current == self.successor():
            self._take_over(current)
        slot = self._slots.fill(grant, current.serial, keys.to_pem(key.key), origin)
        self._slots.name(_NEXT, slot)
        durable.remove(self._file)
        in_use = self._slots.named(CURRENT)  # `current` may be an unproven one that was lent a hand
        self._slots.keep_only([in_use or current, slot])
        return slot

    def promote(self, successor: Identity, at: datetime) -> Identity:
        """The successor has been proven: it's the identity in use, and the old one goes."""
        identity.record_confirmation(successor, at)
        return self._take_over(identity.read_slot(successor.directory))

    def drop(self, current: Identity) -> None:
        """Gives the successor up, and its key with it."""
        self._slots.unname(_NEXT)
        durable.sync_directory(self._directory)
        self.forget_key()
        self._slots.keep_only([current])

    def take_the_place_of_current(self) -> Identity | None:
        """Makes the successor, proven or not, the identity in use; none when there is none."""
        successor = self.successor()
        return self._take_over(successor) if successor is not None else None

    def put_in_order(self, current: Identity) -> Identity:
        """Finishes or undoes what a cut interrupted; the identity in use is `current` or newer."""
        successor = self.successor()
        if successor is not None and successor.confirmed_at and successor != current:
            current = self._take_over(successor)
        elif successor is None or successor == current:
            self._slots.unname(_NEXT)
            successor = None
        kept = self._kept(current)
        if kept is None or (successor is not None and _is_of(kept, successor)):
            self.forget_key()
        self._slots.keep_only([one for one in (current, successor) if one is not None])
        return current

    def clear(self) -> None:
        """No successor, and no key for one."""
        self._slots.unname(_NEXT)
        self.forget_key()

    def _take_over(self, successor: Identity) -> Identity:
        self._slots.name(CURRENT, successor)
        self._slots.unname(_NEXT)
        self._slots.keep_only([successor])
        return successor

    def _kept(self, current: Identity) -> NextKey | None:
        try:
            record = codec.decode(self._file.read_bytes(), _Record)
            key = NextKey(keys.from_pem(record.private_key), record.made_at)
        except FileNotFoundError:
            return None
        except (Refused, ValueError):
            log.warning("the key for the next certificate is damaged: a new one will be made")
            return None
        in_use = (current, self._slots.named(CURRENT), self.successor())
        known = {one.certificate_sha256 for one in in_use if one is not None}
        return key if record.predecessor in known else None


def _is_of(key: NextKey, granted: Identity) -> bool:
    """Whether `granted` is what was asked for with the key."""
    return keys.fingerprint(key.key.public_key()) == granted.key_sha256
