"""When a device renews its certificate, so that a fleet made at once doesn't renew at once.

The draws are numbers from 0 up to 1, each device's own; who calls keeps them or derives them, so
that the time stays the same when it's asked for again.
"""

import hashlib
from datetime import datetime, timedelta
from typing import Final

from device_client.identity import Identity

DUE: Final = 2 / 3
"""How much of a lifetime has passed when the certificate is renewed, on the average."""
JITTER: Final = 0.1
"""How far from that it may be, as a share of the lifetime, to either side."""
_DRAW_DIGITS: Final = 13


def renewal_time(not_before: datetime, not_after: datetime, draw: float) -> datetime:
    """When to renew a certificate: evenly spread over a fifth of its lifetime."""
    share = DUE + (2 * draw - 1) * JITTER
    return not_before + (not_after - not_before) * share


def spread(
    now: datetime, renew_by: datetime, draw: float, ordered_at: datetime | None = None
) -> datetime:
    """When to follow an order that came `now`: evenly over what is left, or now if nothing is.

    By a clock that is behind, too much is left: it's never more than there was at `ordered_at`, as
    far as that is known.
    """
    left = renew_by - now
    if ordered_at is not None:
        left = min(left, renew_by - ordered_at)
    return now + max(left, timedelta()) * draw


def planned(identity: Identity) -> datetime:
    """When the certificate is renewed if nothing else happens."""
    due = renewal_time(identity.not_before, identity.not_after, draw(identity))
    proven = identity.confirmed_at
    if proven is not None and due <= proven < identity.not_after:
        # It was old when it came, and would be renewed again and again without a pause.
        return renewal_time(proven, identity.not_after, draw(identity))
    return due


def draw(identity: Identity, what: str = "") -> float:
    """A number from 0 up to 1 that is this certificate's own, always the same."""
    text = f"{identity.certificate_sha256} {what}"
    digits = hashlib.sha256(text.encode()).hexdigest()[:_DRAW_DIGITS]
    return int(digits, 16) / 16**_DRAW_DIGITS
