"""Which identity to connect with, while a successor waits to be proven.

The successor comes first, and the two take turns when it fails: a new certificate that doesn't work
must not keep a device offline whose old one still does. It's given up when the service says that it
doesn't count, or when the broker refuses it again and again while it lets the old one in.
"""

from device_client.errors import CertificateRefused, DeviceError
from device_client.identity import Identity
from device_client.retry import TRIES_BEFORE_DOUBT, is_worthless


class Trials:
    """Remembers how the tries went; forgotten at a restart, which begins with the successor."""

    def __init__(self) -> None:
        """Nothing has been tried."""
        self.begin()

    def begin(self) -> None:
        """There is another successor than before, or none."""
        self._turn_of_current = False
        self._refusals = 0

    def choose(self, current: Identity, successor: Identity | None, is_over: bool) -> Identity:
        """The one to try now. `is_over` is whether `current` has expired for certain."""
        if successor is None:
            self.begin()
            return current
        return current if self._turn_of_current and not is_over else successor

    def again(self) -> None:
        """The successor's turn has come once more."""
        self._turn_of_current = False

    def successor_failed(self, error: DeviceError, is_over: bool) -> bool:
        """Takes a note; whether the successor is to be given up."""
        self._turn_of_current = True
        if is_worthless(error):
            return True
        if isinstance(error, CertificateRefused):
            self._refusals += 1
            return is_over and self._refusals >= TRIES_BEFORE_DOUBT
        return False

    def current_failed(self, error: DeviceError) -> None:
        """Takes a note: a broker that refuses both says nothing about the successor."""
        self._turn_of_current = False
        if isinstance(error, CertificateRefused):
            self._refusals = 0

    def current_works(self) -> bool:
        """Whether the successor is to be given up for that."""
        return self._refusals >= TRIES_BEFORE_DOUBT
