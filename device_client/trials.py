"""Which identity to use, while a successor waits to be proven.

The successor comes first, and the two take turns when it fails: a new certificate that doesn't work
must not keep a device offline whose old one still does. It's given up when the service says that it
doesn't count, or when the old one is let in and the successor was refused again and again. While
the old one is over it isn't given up: the device may have died between its proof and the note of
it, and then it's the only one that the service still knows.
"""

from collections.abc import Collection

from device_client.errors import CertificateRefused, DeviceError
from device_client.identity import Identity
from device_client.retry import TRIES_BEFORE_DOUBT


class Trials:
    """Remembers how the tries went; forgotten at a restart, which begins with the successor."""

    def __init__(self) -> None:
        """Nothing has been tried."""
        self.begin()

    def begin(self) -> None:
        """There is another successor than before, or none, or it's tried anew."""
        self._turn_of_current = False
        self._refusals = 0

    def choose(
        self, current: Identity, successor: Identity | None, over: Collection[Identity]
    ) -> Identity:
        """The one whose turn it is: to connect with, or to recover with if it is `over`.

        `over` are those that have expired for certain. A recovery by the old one takes the
        successor's place, so there is none before the fleet has refused that for good.
        """
        if successor is None:
            self.begin()
            return current
        if current not in over:
            return current if self._turn_of_current else successor
        is_refused = successor not in over and self._refusals >= TRIES_BEFORE_DOUBT
        return current if is_refused else successor

    def again(self) -> None:
        """The successor's turn has come once more."""
        self._turn_of_current = False

    def successor_failed(self, error: DeviceError) -> None:
        """Takes a note: it's the turn of the other."""
        self._turn_of_current = True
        if isinstance(error, CertificateRefused):
            self._refusals += 1

    def recovering(self, current_is_over: bool) -> None:
        """Takes a note: unless that succeeds, it's the turn of `current` if that is still good.

        If it isn't, the fleet is asked again before the next recovery.
        """
        if current_is_over:
            self.begin()
        else:
            self._turn_of_current = True

    def recovery_refused(self) -> None:
        """Takes a note: by the service, to a successor that is over while `current` isn't.

        If it then accepts `current`, it never saw the successor proven.
        """
        self._refusals = TRIES_BEFORE_DOUBT

    def current_failed(self, error: DeviceError) -> None:
        """Takes a note: a broker that refuses both says nothing about the successor."""
        self._turn_of_current = False
        if isinstance(error, CertificateRefused):
            self._refusals = 0

    def current_works(self) -> bool:
        """Whether the successor is to be given up for that."""
        return self._refusals >= TRIES_BEFORE_DOUBT
