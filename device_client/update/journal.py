"""What the updater must not forget: what runs, what it's at, and what it has yet to report.

All of it is one record, so each step is either done or not, together with what follows from it: a
commit raises the counter, names what runs and puts the final report into the outbox at once. The
record is kept twice, the newer beside the older; a damaged one leaves the step before, from which
every step can be done again. The counters are kept a third time: if all else is lost, they aren't.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from broker.protocol.messages import Moment
from broker.protocol.names import DeviceId
from broker.protocol.updates import AssignedTarget
from device_client import durable
from device_client.update.codes import UpdateCode
from device_client.update.images import Image, Running

log = logging.getLogger(__name__)

_FILES: Final = ("state.0", "state.1")
_COUNTERS: Final = "counters"
_MAX_STATE: Final = 1 << 22
"""Bytes; more than a full outbox and the largest assignment take, so that what was written can be
read again."""


class Stage(StrEnum):
    """How far the work on an assignment has come."""

    CHECKING = "checking"
    DOWNLOADING = "downloading"
    READY = "ready"
    """Downloaded and hashed from storage; waits for the time to switch."""
    SWITCHING = "switching"
    """The inactive slot is being made the next to run."""
    RESTARTING = "restarting"
    TRIAL = "trial"
    """The new image runs and hasn't proven itself."""
    ROLLING_BACK = "rolling_back"
    RETURNING = "returning"
    """What ran before is selected again, and is being started."""


NEXT: Final[Mapping[Stage | None, frozenset[Stage | None]]] = {
    None: frozenset({Stage.CHECKING}),
    Stage.CHECKING: frozenset({Stage.DOWNLOADING, None}),
    Stage.DOWNLOADING: frozenset({Stage.CHECKING, Stage.READY, None}),
    Stage.READY: frozenset({Stage.CHECKING, Stage.SWITCHING, None}),
    Stage.SWITCHING: frozenset({Stage.RESTARTING, Stage.ROLLING_BACK}),
    Stage.RESTARTING: frozenset({Stage.TRIAL, Stage.ROLLING_BACK}),
    Stage.TRIAL: frozenset({Stage.ROLLING_BACK, None}),
    Stage.ROLLING_BACK: frozenset({Stage.RETURNING, None}),
    Stage.RETURNING: frozenset({None}),
}
"""What may follow what; none is that there is no work. What is missing is a fault."""
WITHDRAWABLE: Final = frozenset({Stage.CHECKING, Stage.DOWNLOADING, Stage.READY})
"""Nothing has been switched: a newer assignment takes over at once."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """An assignment that isn't done."""

    device_id: DeviceId
    rollout: str
    sequence: int
    nonce: str
    stage: Stage
    expires: Moment
    """After it nothing is switched, until a renewal comes."""
    targets: tuple[AssignedTarget, ...] = ()
    images: tuple[Image, ...] = ()
    """What is to be installed: not what runs already. Known once it has been checked."""
    not_before: Moment | None = None
    deadline: Moment | None = None
    window: str | None = None
    failures: int = 0
    """Tries in vain before the switch."""
    starts: int = 0
    """How often the new image was started."""
    restarts: int = 0
    """How often what is selected was to be started; going back counts anew."""
    undo_failures: int = 0
    """Tries in vain to select again what ran before."""
    boot: str | None = None
    """Which run of the operating system asked for the restart."""
    why: UpdateCode | None = None
    """What went wrong last."""
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A report to be sent until it's acknowledged; its text never changes."""

    report_id: str
    sequence: int
    is_final: bool
    text: str


@dataclass(frozen=True, kw_only=True)
class Note:
    """The last refusal, for people."""

    code: str
    message: str
    remedy: str
    at: Moment


@dataclass(frozen=True, kw_only=True)
class State:
    """The whole record."""

    generation: int = 0
    sequence: int = 0
    """The highest that was taken up; one that is lower is a replay."""
    directors: tuple[str, ...] = ()
    """The ids of the director's keys under which that was counted, and `learned` was said."""
    learned: Moment | None = None
    """It isn't earlier than this, as the director says. Only updates are judged by it."""
    running: dict[str, Running] = field(default_factory=dict)
    """By component."""
    work: Work | None = None
    switched: tuple[Moment, ...] = ()
    """When images were switched in the last day, the oldest first."""
    outbox: tuple[Entry, ...] = ()
    """The oldest first."""
    refusal: Note | None = None
    told: str = ""
    """The id of the report by which the service knows what runs."""

    @property
    def stage(self) -> Stage | None:
        """How far the work has come; none without work."""
        return self.work.stage if self.work else None


class StepInvalid(Exception):
    """The table has no such step: a fault of this program."""


class Journal:
    """The record on the disk; methods block on it. What they raise has changed nothing."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.state = State()
        self.was_damaged = False

    def open(self, factory: Mapping[str, Running]) -> None:
        """Takes up the newest whole record; begins with what came from the factory without one."""
        durable.make_directory(self._directory)
        durable.remove_leftovers(self._directory)
        kept = [(self._directory / name) for name in _FILES]
        found = [state for path in kept if (state := _read(path)) is not None]
        self.was_damaged = len(found) < sum(path.exists() for path in kept)
        self.state = max(found, key=lambda state: state.generation, default=State())
        running = _running(factory, self.state)
        for component, counter in self._counters().items():
            known = running.get(component, Running())
            reached = max(counter, known.security_counter)
            running[component] = replace(known, security_counter=reached)
        self.state = replace(self.state, running=running)
        self._keep_counters()

    def change(self, after: State) -> State:
        """The record as it's on the disk from now on.

        Raises:
            StepInvalid: the work can't go there from where it stands.
            OSError: the disk didn't take it.
        """
        before = self.state
        if before.stage is not after.stage and after.stage not in NEXT[before.stage]:
            raise StepInvalid(f"from {before.stage} to {after.stage}")
        self._keep(after)
        if after.stage is None and before.stage is not None:
            self._keep_what_is_over(after)
        return self.state

    def _keep_what_is_over(self, after: State) -> None:
        """What is over stays over, even if the newer record is damaged. The step is done without
        that, so a disk that takes no more isn't the step's failure."""
        try:
            self._keep(after)
            self._keep_counters()
        except OSError as error:
            log.warning("the journal's second copy couldn't be written: %s", error)

    def _keep(self, state: State) -> None:
        state = replace(state, generation=self.state.generation + 1)
        content = msgspec.json.encode(state)
        check = hashlib.sha256(content).hexdigest().encode()
        path = self._directory / _FILES[state.generation % 2]
        durable.replace_file(path, check + b"\n" + content)
        self.state = state

    def _counters(self) -> dict[str, int]:
        try:
            content = (self._directory / _COUNTERS).read_bytes()
            return msgspec.json.decode(content, type=dict[str, int])
        except (FileNotFoundError, ValueError):  # not in UTF-8, or not in JSON
            return {}

    def _keep_counters(self) -> None:
        reached = {name: each.security_counter for name, each in self.state.running.items()}
        if reached != self._counters():
            durable.replace_file(self._directory / _COUNTERS, msgspec.json.encode(reached))


def _read(path: Path) -> State | None:
    try:
        with path.open("rb") as file:
            check, _, content = file.read(_MAX_STATE).partition(b"\n")
        if hashlib.sha256(content).hexdigest().encode() != check:
            raise ValueError("it isn't as it was written")
        return msgspec.json.decode(content, type=State)
    except FileNotFoundError:
        return None
    except (ValueError, msgspec.MsgspecError) as error:
        log.warning("%s is damaged: %s", path.name, error)
        return None


def _running(factory: Mapping[str, Running], state: State) -> dict[str, Running]:
    """What was installed since, and what is still from the factory, as it's configured now. No
    counter falls by that."""
    running = dict(factory)
    for component, known in state.running.items():
        told = running.get(component)
        if known.path is not None or told is None or told.version is None:
            running[component] = known
        else:
            reached = max(told.security_counter, known.security_counter)
            running[component] = replace(told, security_counter=reached)
    return running


def looked_at(directory: Path, factory: Mapping[str, Running]) -> State:
    """The record for reading only, while an agent may be at work."""
    found = [state for name in _FILES if (state := _read(directory / name)) is not None]
    state = max(found, key=lambda state: state.generation, default=State())
    return replace(state, running=_running(factory, state))
