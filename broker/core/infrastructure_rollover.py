"""Replacing the infrastructure authority, by which devices know brokers: the steps, as a table.

Devices learn of the new one by a trust bundle, and some lie in boxes with an old one: brokers
change one after the other, and each only when those who meet it know both
(docs/adr/0015-the-claim-broker-changes-last.md).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from broker.core.ca_rollover import FIRST_GENERATION, RolloverError
from broker.protocol.zones import Zone


class ServerPhase(StrEnum):
    """How far it is."""

    INTRODUCED = "introduced"
    """Trust bundles hold both; brokers serve with the old one's certificates."""
    FLEET = "fleet"
    """The fleet's broker serves with the new one's."""
    CLAIM = "claim"
    """The claim broker, too."""
    DONE = "done"
    """Trust bundles hold the new one only."""
    RETURNING = "returning"
    """It was cancelled: brokers serve with the old one's again, trust bundles still hold both."""
    CANCELLED = "cancelled"
    """Trust bundles hold the old one only."""


_NEXT: Final = {
    ServerPhase.INTRODUCED: ServerPhase.FLEET,
    ServerPhase.FLEET: ServerPhase.CLAIM,
    ServerPhase.CLAIM: ServerPhase.DONE,
}
_CANCELLED: Final = {
    # No broker ever served with the new one's, so nobody has to come back first.
    ServerPhase.INTRODUCED: ServerPhase.CANCELLED,
    ServerPhase.FLEET: ServerPhase.RETURNING,
    ServerPhase.CLAIM: ServerPhase.RETURNING,
}
_BY_NEW: Final = {
    Zone.FLEET: {ServerPhase.FLEET, ServerPhase.CLAIM, ServerPhase.DONE},
    Zone.CLAIM: {ServerPhase.CLAIM, ServerPhase.DONE},
}


@dataclass(frozen=True, kw_only=True)
class ServerRollover:
    """From which infrastructure authority to which, and how far."""

    old: int
    new: int
    phase: ServerPhase
    since: datetime

    def issuing(self, zone: Zone) -> int:
        """Whose certificates the zone's broker, and the service there, live on."""
        return self.new if self.phase in _BY_NEW[zone] else self.old

    @property
    def trusted(self) -> tuple[int, ...]:
        """Those by which brokers and the service are known."""
        return (self.remaining,) if self.is_over else (self.old, self.new)

    @property
    def remaining(self) -> int:
        """The one that counts when it is over."""
        goes_back = self.phase in (ServerPhase.RETURNING, ServerPhase.CANCELLED)
        return self.old if goes_back else self.new

    @property
    def is_over(self) -> bool:
        """Whether one of the two doesn't count any more."""
        return self.phase in (ServerPhase.DONE, ServerPhase.CANCELLED)


def begin_servers(known: ServerRollover | None, now: datetime) -> ServerRollover:
    """The next one.

    Raises:
        RolloverError: one is under way.
    """
    if known is None:
        old = newest = FIRST_GENERATION
    elif known.is_over:
        old, newest = known.remaining, max(known.old, known.new)
    else:
        raise RolloverError("a rollover of the infrastructure authority is under way")
    # A number is never used again: devices and backups may still know who had it.
    return ServerRollover(old=old, new=newest + 1, phase=ServerPhase.INTRODUCED, since=now)


def reach(known: ServerRollover | None, phase: ServerPhase) -> ServerRollover:
    """The rollover in this phase, which follows the one it is in or is that one.

    Raises:
        RolloverError: it isn't its turn.
    """
    known = _under_way(known)
    if known.phase is not phase and _NEXT.get(known.phase) is not phase:
        raise RolloverError(f"the phase is '{known.phase}', which '{phase}' doesn't follow")
    return replace(known, phase=phase)


def cancel(known: ServerRollover | None) -> ServerRollover:
    """The rollover on its way back, or back already. As long as it isn't done every device knows
    the old authority: no bundle was ever without it.

    Raises:
        RolloverError: it is done.
    """
    known = _under_way(known)
    if known.phase is ServerPhase.DONE:
        raise RolloverError("it is done, and devices have forgotten the old authority")
    return replace(known, phase=_CANCELLED.get(known.phase, known.phase))


def finish(known: ServerRollover | None) -> ServerRollover:
    """The rollover at its end, or at the end of its way back.

    Raises:
        RolloverError: it isn't its turn.
    """
    known = _under_way(known)
    if known.phase in (ServerPhase.RETURNING, ServerPhase.CANCELLED):
        return replace(known, phase=ServerPhase.CANCELLED)
    return reach(known, ServerPhase.DONE)


def _under_way(known: ServerRollover | None) -> ServerRollover:
    if known is None:
        raise RolloverError("there is no rollover of the infrastructure authority")
    return known
