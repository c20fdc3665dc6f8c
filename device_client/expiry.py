"""Which of this device's certificates are over, by more than the word of its own clock.

Expiry is no verdict on an identity: the service may have seen it proven, and then it is the one to
recover with. So one that is over is kept until another has been granted in its place.
"""

from datetime import timedelta
from typing import Final

from broker.protocol.codes import Code
from broker.protocol.names import Fingerprint
from device_client.errors import CertificateRefused, DeviceError, RequestRejected
from device_client.identity import Identity
from device_client.timekeeping import Timekeeper

_APART: Final = timedelta(minutes=5)
"""How far the service's clock may be ahead of the best guess here."""


class Expiry:
    """What the floor proves of it, and what brokers and the service said since the last success."""

    def __init__(self, timekeeper: Timekeeper) -> None:
        """`timekeeper` is the agent's."""
        self._timekeeper = timekeeper
        self._heard: set[Fingerprint] = set()

    def is_certain(self, one: Identity) -> bool:
        """Whether it is over, for all that is known."""
        return one.certificate_sha256 in self._heard or one.not_after <= self._timekeeper.floor()

    def explains(self, error: DeviceError, one: Identity) -> bool:
        """Whether `error`, which `one` met with in the fleet, says no more than that it is over.

        What ended a moment ago is refused by the service as revoked: a broker whose clock is a
        little behind the service's had let it in.
        """
        now = self._timekeeper.now()
        match error:
            case CertificateRefused():
                return error.expired or one.not_after <= now
            case RequestRejected():
                code = error.rejected.known_code
                is_revoked = code is Code.CERTIFICATE_REVOKED and one.not_after <= now + _APART
                return is_revoked or code is Code.CERTIFICATE_EXPIRED
            case _:
                return False

    def hear(self, one: Identity) -> bool:
        """Takes a note that it's over; whether that is news."""
        is_news = one.certificate_sha256 not in self._heard
        self._heard.add(one.certificate_sha256)
        return is_news

    def doubt(self, one: Identity) -> None:
        """Whatever said so: the fleet is asked again before the next time."""
        self._heard.discard(one.certificate_sha256)

    def forget(self) -> None:
        """All that was said; the floor stays."""
        self._heard.clear()
