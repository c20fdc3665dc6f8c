"""How long each role's metadata holds, when it's signed anew, and when to warn."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.protocol.updates import ImageFacts

_LONGEST_WARNING: Final = timedelta(days=45)
_SUPPORT_WARNING: Final = timedelta(days=90)


@dataclass(frozen=True, kw_only=True)
class Lifetimes:
    """For how long metadata is signed.

    The timestamp's is how long somebody who holds the broker can hide a new release (TUF's freeze
    attack), and how long the service may be down before devices refuse every update. It's signed
    anew when a third is left: with 3 days the service may be down for a whole day at any time.
    """

    root: timedelta = timedelta(days=365)
    targets: timedelta = timedelta(days=365)
    """The delegated roles' too."""
    snapshot: timedelta = timedelta(days=14)
    timestamp: timedelta = timedelta(days=3)

    def of(self, role: str) -> timedelta:
        """The lifetime of a role by name; a delegated role's is that of targets."""
        fields = {"root": self.root, "snapshot": self.snapshot, "timestamp": self.timestamp}
        return fields.get(role, self.targets)


def is_due(expires: datetime, lifetime: timedelta, now: datetime) -> bool:
    """Whether the service is to sign it anew."""
    return expires - now <= lifetime / 3


def is_lapsing(expires: datetime, lifetime: timedelta, now: datetime) -> bool:
    """Whether somebody is to be warned: the service signs at a third, so a quarter means that it
    doesn't; a ceremony takes people, so weeks are left for it."""
    return expires - now <= min(lifetime / 4, _LONGEST_WARNING)


def support_state(facts: ImageFacts, now: datetime) -> str:
    """`ended`, `ending` (within 90 days), `supported`, or `unstated`."""
    if facts.support_until is None:
        return "unstated"
    if facts.support_until <= now:
        return "ended"
    return "ending" if facts.support_until - now <= _SUPPORT_WARNING else "supported"
