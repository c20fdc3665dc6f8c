"""The numbered slots of the state directory, each a whole identity, and links that name them."""

import logging
from collections.abc import Collection
from pathlib import Path
from typing import Final

from broker.protocol.names import SerialNumber
from device_client import durable, identity
from device_client.answers import Grant
from device_client.identity import Identity, Origin, SlotCorrupt

log = logging.getLogger(__name__)

_SLOTS: Final = "credentials"


class Slots:
    """`credentials/<n>/` in a state directory. A slot is filled once and never refilled."""

    def __init__(self, directory: Path) -> None:
        """`directory` is the state directory; nothing is touched yet."""
        self._directory = directory
        self._slots = directory / _SLOTS

    def named(self, link: str) -> Identity | None:
        """The identity that the link names; none when there is no link, or the slot isn't whole."""
        try:
            return identity.read_slot(self._slots / (self._directory / link).readlink().name)
        except (OSError, SlotCorrupt):
            return None

    def name(self, link: str, slot: Identity) -> None:
        """From now on the link names this slot, durably."""
        durable.replace_link(self._directory / link, f"{_SLOTS}/{slot.directory.name}")

    def unname(self, link: str) -> None:
        """No such link; a cut may undo it."""
        durable.remove(self._directory / link)

    def fill(self, grant: Grant, serial: SerialNumber, key_pem: str, origin: Origin) -> Identity:
        """A new slot with the grant and its key, durably; nothing names it yet."""
        number = max(self.numbers(), default=0) + 1
        slot = self._slots / str(number)
        filling = durable.temporary_directory(slot)
        identity.write_slot(filling, grant, serial, key_pem, origin)
        durable.move(filling, slot)
        return identity.read_slot(slot)

    def tidy(self) -> None:
        """Makes the place, and removes what a cut left half filled."""
        durable.make_directory(self._slots)
        durable.remove_leftovers(self._slots)

    def keep_only(self, kept: Collection[Identity]) -> None:
        """Removes all other slots."""
        names = {one.directory.name for one in kept}
        for number in self.numbers():
            if str(number) not in names:
                durable.remove(self._slots / str(number))

    def best(self) -> Identity | None:
        """The one to use when no link names a whole one: proven before unproven, then newer."""
        whole = []
        for number in reversed(self.numbers()):
            try:
                whole.append(identity.read_slot(self._slots / str(number)))
            except SlotCorrupt as error:
                log.warning("a stored identity is damaged: %s", error)
        return max(whole, key=lambda one: one.confirmed_at is not None, default=None)

    def readable_keys(self) -> list[str]:
        """The private keys in PEM that can be read, the newest first, of damaged slots too."""
        found = []
        for number in reversed(self.numbers()):
            try:
                found.append(identity.read_key(self._slots / str(number)))
            except SlotCorrupt as error:
                log.warning("a stored key is damaged: %s", error)
        return found

    def numbers(self) -> list[int]:
        """Of the slots there are, ascending."""
        return sorted(int(path.name) for path in self._slots.iterdir() if path.name.isdecimal())
