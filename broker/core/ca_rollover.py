"""Replacing the operational authority while the fleet lives on: the phases, as a table.

Each authority has a number, its generation; the first is 1. One row of the registry names the old
one, the new one and the phase, and is the truth: which are trusted and which one issues follows
from it (docs/adr/0012-two-authorities-at-once.md).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

FIRST_GENERATION: Final = 1
PER_MINUTE: Final = 60


class Phase(StrEnum):
    """How far a rollover has got."""

    INTRODUCING = "introducing"
    """The broker is to trust both; nothing is issued by the new one yet."""
    SWITCHING = "switching"
    """Both are trusted, and the service is to issue by the new one."""
    MOVING = "moving"
    """The old one issues nothing any more, and devices move."""
    LEAVING = "leaving"
    """The broker is to forget the old one."""
    DONE = "done"


class Step(StrEnum):
    """What moves a rollover on."""

    IN_FORCE = "in_force"
    """The service does what the phase asks for, and the broker has read it."""
    FINISH = "finish"
    CANCEL = "cancel"


@dataclass(frozen=True)
class Rollover:
    """From which authority to which, and how far."""

    old: int
    new: int
    phase: Phase
    started_at: datetime
    is_return: bool = False
    """Whether it was cancelled: `new` is the one that was there before."""
    campaign: int | None = None
    """The rotation campaign by which devices are told to move; none when nobody was told yet."""
    per_minute: int = PER_MINUTE
    """How many devices are told in a minute, at most."""
    wave_size: int | None = None


@dataclass(frozen=True)
class InForce:
    """What follows from a rollover, or from none."""

    issuing: int
    trusted: frozenset[int]


class RolloverError(Exception):
    """The table has no such step: it makes no sense now."""

    code = "rollover_step_invalid"


ROLLOVER_TRANSITIONS: Final = {
    (Phase.INTRODUCING, Step.IN_FORCE): Phase.SWITCHING,
    (Phase.SWITCHING, Step.IN_FORCE): Phase.MOVING,
    (Phase.MOVING, Step.FINISH): Phase.LEAVING,
    (Phase.LEAVING, Step.IN_FORCE): Phase.DONE,
    # The new one has issued nothing, so there is nobody to move back.
    (Phase.INTRODUCING, Step.CANCEL): Phase.LEAVING,
    (Phase.SWITCHING, Step.CANCEL): Phase.SWITCHING,
    (Phase.MOVING, Step.CANCEL): Phase.SWITCHING,
}


def begin(known: Rollover | None, now: datetime) -> Rollover:
    """A rollover from the authority that issues to the next.

    Raises:
        RolloverError: one is under way.
    """
    if is_under_way(known):
        raise RolloverError("a rollover is under way")
    old = in_force(known).issuing
    highest = FIRST_GENERATION if known is None else max(known.old, known.new)
    return Rollover(old, highest + 1, Phase.INTRODUCING, now)


def advance(rollover: Rollover, step: Step) -> Rollover:
    """What follows.

    Raises:
        RolloverError: the table has no such step.
    """
    phase = ROLLOVER_TRANSITIONS.get((rollover.phase, step))
    if phase is None or (step is Step.CANCEL and rollover.is_return):
        raise RolloverError(f"a rollover that is {rollover.phase} can't {step}")
    if step is not Step.CANCEL:
        return replace(rollover, phase=phase)
    return replace(
        rollover,
        old=rollover.new,
        new=rollover.old,
        phase=phase,
        is_return=True,
        campaign=None,
    )


def in_force(rollover: Rollover | None) -> InForce:
    """Who issues and who is trusted."""
    if rollover is None:
        return InForce(FIRST_GENERATION, frozenset({FIRST_GENERATION}))
    issuing = rollover.old if rollover.phase is Phase.INTRODUCING else rollover.new
    if rollover.phase in (Phase.LEAVING, Phase.DONE):
        return InForce(issuing, frozenset({rollover.new}))
    return InForce(issuing, frozenset({rollover.old, rollover.new}))


def is_under_way(rollover: Rollover | None) -> bool:
    """Whether one has begun and isn't done."""
    return rollover is not None and rollover.phase is not Phase.DONE
