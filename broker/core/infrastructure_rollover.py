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


_NEXT: Final = {
    ServerPhase.INTRODUCED: ServerPhase.FLEET,
    ServerPhase.FLEET: ServerPhase.CLAIM,
    ServerPhase.CLAIM: ServerPhase.DONE,
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
        return (self.new,) if self.phase is ServerPhase.DONE else (self.old, self.new)


def begin_servers(known: ServerRollover | None, now: datetime) -> ServerRollover:
    """The next one.

    Raises:
        RolloverError: one is under way.
    """
    if known is not None and known.phase is not ServerPhase.DONE:
        raise RolloverError("a rollover of the infrastructure authority is under way")
    old = FIRST_GENERATION if known is None else known.new
    return ServerRollover(old=old, new=old + 1, phase=ServerPhase.INTRODUCED, since=now)


def reach(known: ServerRollover | None, phase: ServerPhase) -> ServerRollover:
    """The rollover in this phase, which follows the one it is in or is that one.

    Raises:
        RolloverError: it isn't its turn.
    """
    if known is None:
        raise RolloverError("there is no rollover of the infrastructure authority")
    if known.phase is not phase and _NEXT.get(known.phase) is not phase:
        raise RolloverError(f"the phase is '{known.phase}', which '{phase}' doesn't follow")
    return replace(known, phase=phase)
