"""The lives of a rollout and of one device's part in it, as tables: what is missing is an error."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from broker.core.rollout_pace import Bucket, Pace, StopRule
from broker.protocol.names import DeviceId, GroupName
from broker.protocol.updates import ImageFacts, Phase


class RolloutState(StrEnum):
    """Where a rollout stands."""

    HELD = "held"
    """Nobody is told before it's released; what they'll be told is signed meanwhile."""
    RUNNING = "running"
    PAUSED = "paused"
    """Nobody else is told; who has been told goes on."""
    ABORTED = "aborted"
    """The stop rule ended it: nobody else is told, and who hasn't switched yet is called back."""
    CANCELLED = "cancelled"
    """An operator ended it, with the same effect."""
    DONE = "done"


class RolloutInput(StrEnum):
    """What happens to a rollout."""

    RELEASE = "release"
    PAUSE = "pause"
    RESUME = "resume"
    ABORT = "abort"
    CANCEL = "cancel"
    FINISH = "finish"
    RETRY = "retry"


class Progress(StrEnum):
    """How far one device has come, as the service knows it."""

    QUEUED = "queued"
    """Its turn hasn't come."""
    ASSIGNED = "assigned"
    """Told, durably; it may be offline. This is never a success."""
    DOWNLOADING = "downloading"
    WAITING = "waiting"
    """Has the image; the hours in which to switch haven't come."""
    CANCELLING = "cancelling"
    """Called back; it hasn't said yet whether it was in time."""
    INSTALLED = "installed"
    ROLLED_BACK = "rolled_back"
    REFUSED = "refused"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Never told: nothing fits it, it runs the image or failed on it before, or it has left."""


class Step(StrEnum):
    """What the service does to a device's part; what the device says of it is a `Phase`."""

    ASSIGN = "assign"
    WITHDRAW = "withdraw"
    SUPERSEDE = "supersede"
    """A newer rollout has taken the device over."""
    SKIP = "skip"
    REQUEUE = "requeue"
    """The operator says: again."""


ALIVE: Final = frozenset({RolloutState.HELD, RolloutState.RUNNING, RolloutState.PAUSED})
IN_FLIGHT: Final = frozenset({Progress.ASSIGNED, Progress.DOWNLOADING, Progress.WAITING})
"""Told, and may still switch."""
IN_FORCE: Final = IN_FLIGHT | {Progress.CANCELLING}
"""Where an assignment is for the device to carry out, or to call off."""
FAILED: Final = frozenset({Progress.ROLLED_BACK, Progress.REFUSED})
FINISHED: Final = FAILED | {Progress.INSTALLED}
"""What the stop rule counts: only what devices have said after the end."""
OPEN: Final = IN_FLIGHT | {Progress.QUEUED}

ROLLOUT_TRANSITIONS: Final[dict[tuple[RolloutState, RolloutInput], RolloutState]] = {
    (RolloutState.HELD, RolloutInput.RELEASE): RolloutState.RUNNING,
    (RolloutState.HELD, RolloutInput.CANCEL): RolloutState.CANCELLED,
    (RolloutState.RUNNING, RolloutInput.PAUSE): RolloutState.PAUSED,
    (RolloutState.RUNNING, RolloutInput.ABORT): RolloutState.ABORTED,
    (RolloutState.RUNNING, RolloutInput.CANCEL): RolloutState.CANCELLED,
    (RolloutState.RUNNING, RolloutInput.FINISH): RolloutState.DONE,
    (RolloutState.RUNNING, RolloutInput.RETRY): RolloutState.RUNNING,
    (RolloutState.PAUSED, RolloutInput.RESUME): RolloutState.RUNNING,
    (RolloutState.PAUSED, RolloutInput.ABORT): RolloutState.ABORTED,
    (RolloutState.PAUSED, RolloutInput.CANCEL): RolloutState.CANCELLED,
    (RolloutState.PAUSED, RolloutInput.RETRY): RolloutState.PAUSED,
    (RolloutState.ABORTED, RolloutInput.CANCEL): RolloutState.CANCELLED,
    (RolloutState.ABORTED, RolloutInput.RETRY): RolloutState.RUNNING,
    (RolloutState.DONE, RolloutInput.RETRY): RolloutState.RUNNING,
}

_BY_DEVICE: Final = {phase: Progress(phase.value) for phase in Phase}

PROGRESS_TRANSITIONS: Final[dict[tuple[Progress, Phase | Step], Progress]] = {
    (Progress.QUEUED, Step.ASSIGN): Progress.ASSIGNED,
    (Progress.QUEUED, Step.WITHDRAW): Progress.CANCELLED,
    (Progress.QUEUED, Step.SKIP): Progress.SKIPPED,
    **{(at, Step.WITHDRAW): Progress.CANCELLING for at in IN_FLIGHT},
    **{
        (at, step): to
        for at in IN_FORCE
        for step, to in ((Step.SUPERSEDE, Progress.CANCELLED), (Step.SKIP, Progress.SKIPPED))
    },
    **{(at, phase): _BY_DEVICE[phase] for at in IN_FLIGHT for phase in Phase},
    # Called back, or taken over by a newer rollout, it may have switched all the same: what it
    # says is what happened. Until it's final, it says nothing new.
    **{
        (at, phase): _BY_DEVICE[phase]
        for at in (Progress.CANCELLING, Progress.CANCELLED)
        for phase in Phase
        if phase.is_final
    },
    **{
        (at, phase): at
        for at in (Progress.CANCELLING, Progress.CANCELLED)
        for phase in Phase
        if not phase.is_final
    },
    **{
        (at, Step.REQUEUE): Progress.QUEUED
        for at in FAILED | {Progress.CANCELLED, Progress.CANCELLING, Progress.SKIPPED}
    },
}


class RolloutError(Exception):
    """The table has no such step."""

    code = "transition_invalid"


def next_rollout_state(state: RolloutState, happens: RolloutInput) -> RolloutState:
    """The state that follows.

    Raises:
        RolloutError: the table has no such step.
    """
    try:
        return ROLLOUT_TRANSITIONS[state, happens]
    except KeyError:
        raise RolloutError(f"a rollout that is {state} can't {happens}") from None


def next_progress(at: Progress, happens: Phase | Step) -> Progress:
    """Where the device stands then.

    Raises:
        RolloutError: the table has no such step.
    """
    try:
        return PROGRESS_TRANSITIONS[at, happens]
    except KeyError:
        raise RolloutError(f"a device that is {at} can't {happens}") from None


@dataclass(frozen=True)
class Image:
    """An image of a rollout, as it was published when the rollout began."""

    path: str
    sha256: str
    length: int
    facts: ImageFacts


@dataclass(frozen=True)
class Selection:
    """Who is meant: the devices by name, those of a group, or all."""

    devices: tuple[DeviceId, ...] = ()
    group: GroupName | None = None
    everyone: bool = False

    @property
    def grows(self) -> bool:
        """Whether a device that joins the fleet later may be meant, too."""
        return self.everyone or self.group is not None


@dataclass(frozen=True)
class Timing:
    """When devices may switch, and are told; each is none where it doesn't matter."""

    not_before: datetime | None = None
    deadline: datetime | None = None
    window: str | None = None
    """Hours in UTC, such as `22:00-04:00`."""
    release_at: datetime | None = None
    """When a rollout that is held is released without an operator's word."""


@dataclass(frozen=True)
class Rollout:
    """An update of many devices; `number` rises with each, and a later one takes devices over."""

    name: str
    number: int
    images: tuple[Image, ...]
    selection: Selection
    pace: Pace
    timing: Timing
    stop: StopRule
    started_at: datetime
    state: RolloutState = RolloutState.RUNNING
    state_at: datetime | None = None
    """Since when it's in this state; none when since its start."""
    reason: str | None = None
    """Why it was aborted, or the operator's words."""
    moving: bool = True
    """Whether the service still has something to do for it."""
    keep_open: bool = False
    """Whether it goes on for devices that join when all the others have finished."""
    again: bool = False
    """Whether devices that run the image, or have rolled it back, are offered it again."""
    wave: int = 0
    bucket: Bucket | None = None
    enlisted: bool = False
    """Whether everybody who was meant at the start stands in the queue."""
    enlisted_to: str = ""
    """Up to which device, in the order of names, they do."""
    joined_to: int = 0
    """Up to which event those who joined later were looked at."""


Tally = Mapping[tuple[int, Progress], int]
"""How many devices of each wave stand where; kept by the registry."""


def count(tally: Tally, among: frozenset[Progress], wave: int | None = None) -> int:
    """How many stand at one of `among`, in one wave or in all."""
    return sum(
        number
        for (its_wave, progress), number in tally.items()
        if progress in among and wave in (None, its_wave)
    )
