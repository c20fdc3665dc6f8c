"""How long a device that was put out is thrown off again, should it be back.

Mosquitto checks a CRL in handshakes. Who had finished one just before, and waits with CONNECT, gets
in afterwards and stays; Mosquitto gives such a connection up after some 95 s. So the lock-out is
repeated for longer than that; against who keeps Mosquitto waiting for longer, see
`services/stragglers.py`. The embedded broker asks at CONNECT, and needs none of it.
"""

from typing import Final

from broker.core.lifecycle import DeviceInput

WATCH_S: Final = 100.0
EVERY_S: Final = 1.0

_FOR_GOOD: Final = {DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE}
CAN_WAIT: Final = frozenset({DeviceInput.LAPSE, DeviceInput.CONFIRM})
"""What time brings about, for thousands together. An operator's act never waits for these."""


def is_due(act: DeviceInput, watched_s: float, rested_s: float, has_live_certificate: bool) -> bool:
    """Whether the connections by the device's name are to be ended now.

    While it has a live certificate (it was reclaimed, or holds an older one) the name is somebody's
    who may be in, so it isn't disturbed; but at the end, once, for what may have slipped in: the
    rightful one comes back at once, and nobody else.

    Args:
        act: what put it out.
        watched_s: for how long the lock-out has been watched.
        rested_s: since it was done last.
        has_live_certificate: whether a broker admits any of the device's certificates.
    """
    if is_over(watched_s):
        return act in _FOR_GOOD or not has_live_certificate
    return not has_live_certificate and rested_s >= EVERY_S


def is_over(watched_s: float) -> bool:
    """Whether no handshake from before the CRL is left in a broker, but for a thief's."""
    return watched_s >= WATCH_S
