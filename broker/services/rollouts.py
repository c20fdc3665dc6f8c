"""What an operator does with rollouts: start, pause, resume, cancel, retry, look.

All of it is written to the registry; the running service carries it out.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Final

from broker.core.fitting import ambiguous
from broker.core.records import Event, EventKind
from broker.core.rollout import (
    FAILED,
    Image,
    Progress,
    Rollout,
    RolloutError,
    RolloutInput,
    RolloutState,
    Selection,
    Step,
    Tally,
    Timing,
    next_progress,
    next_rollout_state,
)
from broker.core.rollout_offer import AGAIN, SUPERSEDED, Skip, offer
from broker.core.rollout_pace import Pace, StopRule
from broker.core.rollout_steps import LATE
from broker.core.update_records import DeviceUpdate, Part
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.ports.updates import PublishedTarget, UpdateCode, UpdateError
from broker.protocol.names import DeviceId, GroupName, is_name
from broker.services.problems import Problem, ProblemCode, unknown_device, unknown_group
from broker.services.rollout_director import change
from broker.services.rollout_queue import page, part_of

_PAGE: Final = 500
_MAX_IMAGES: Final = 16
TOLD: Final = "told"
"""In a preview: those who would be told."""


@dataclass(frozen=True)
class Push:
    """What an operator asks for."""

    name: str
    paths: tuple[str, ...]
    selection: Selection
    pace: Pace = field(default_factory=Pace)
    timing: Timing = field(default_factory=Timing)
    stop: StopRule = field(default_factory=StopRule)
    keep_open: bool = False
    again: bool = False
    hold: bool = False
    """Whether nobody is told before it's released."""


@dataclass(frozen=True)
class RolloutView:
    """A rollout and how many devices stand where."""

    rollout: Rollout
    tally: Tally
    codes: Mapping[str, int]
    """How many failed, were skipped or called back, by code."""
    prepared: int = 0
    """For how many of the queue it's signed already what they'll be told."""

    def at(self, *among: Progress) -> int:
        """How many stand at one of these."""
        return sum(n for (_, progress), n in self.tally.items() if progress in among)

    @property
    def devices(self) -> int:
        """All that it concerns."""
        return sum(self.tally.values())


def planned(push: Push, published: Sequence[PublishedTarget], now: datetime) -> Rollout:
    """The rollout that `push` describes, not started.

    Raises:
        UpdateError: IMAGE_UNKNOWN.
        Problem: VALUE_INVALID or NAME_INVALID.
    """
    if not is_name(push.name):
        raise Problem(
            ProblemCode.NAME_INVALID,
            f"{push.name!r} isn't a name for a rollout.",
            "Use 1 to 64 letters, digits, '_' or '-'.",
        )
    if not 1 <= len(push.paths) <= _MAX_IMAGES:
        raise _invalid(f"A rollout has 1 to {_MAX_IMAGES} images.", "Push fewer at once.")
    images = tuple(_image(path, published) for path in dict.fromkeys(push.paths))
    pair = ambiguous(images)
    if pair is not None:
        raise _invalid(
            f"{pair[0].path} and {pair[1].path} are for the same component of the same devices.",
            "Push one of them.",
        )
    is_held = push.hold or push.timing.release_at is not None
    return Rollout(
        name=push.name,
        number=0,
        images=images,
        selection=push.selection,
        pace=push.pace,
        timing=push.timing,
        stop=push.stop,
        started_at=now,
        state=RolloutState.HELD if is_held else RolloutState.RUNNING,
        keep_open=push.keep_open,
        again=push.again,
    )


async def preview(registry: Registry, rollout: Rollout) -> dict[str, int]:
    """How many devices would be told, and how many skipped by which code; nothing is changed.

    Raises:
        Problem: a device or the group isn't known, or the name is used.
    """
    await registry.read(lambda view: _refuse(view, rollout))
    counts: Counter[str] = Counter()
    after: str | None = ""
    while after is not None:
        found, after = await registry.read(partial(_preview_page, rollout=rollout, after=after))
        counts.update(found)
    return dict(counts)


async def start(registry: Registry, clock: Clock, rollout: Rollout) -> Rollout:
    """Starts it; the running service tells the devices.

    Raises:
        Problem: a device or the group isn't known, or the name is used.
    """

    now = clock.now()

    def work(tx: WriteTransaction) -> Rollout:
        begun = tx.rollout(rollout.name)
        if begun is not None and begun.started_at == now:
            return begun  # by this very work, whose commit was done although nobody heard of it
        _refuse(tx, rollout)
        started = replace(
            rollout,
            number=tx.newest_rollout_number() + 1,
            started_at=now,
            joined_to=tx.last_event_id(),
        )
        tx.save_rollout(started)
        images = ", ".join(image.path for image in rollout.images)
        tx.add_event(
            Event(
                now,
                EventKind.ROLLOUT_STARTED,
                group=rollout.selection.group,
                detail=f"rollout {rollout.name}: {images}",
            )
        )
        return started

    return await registry.write(work)


async def steer(
    registry: Registry, clock: Clock, name: str, wanted: RolloutInput, reason: str | None
) -> Rollout:
    """Releases, pauses, resumes or cancels it; where it stands there already, nothing changes.

    Raises:
        Problem: ROLLOUT_UNKNOWN, or ROLLOUT_STATE when it can't.
    """

    def work(tx: WriteTransaction) -> Rollout:
        rollout = known(tx, name)
        if rollout.state is _LEADS_TO.get(wanted):
            return rollout
        _refuse_state(rollout, wanted)
        return change(tx, name, wanted, reason, clock.now())

    return await registry.write(work)


async def retry(registry: Registry, clock: Clock, name: str, devices: Sequence[str] = ()) -> int:
    """Puts those who failed, or were called back, into the queue again: the operator says that the
    same image is to be offered once more. Returns how many that were.

    Args:
        devices: only these; then also such as were skipped.

    Raises:
        Problem: ROLLOUT_UNKNOWN, DEVICE_UNKNOWN, or ROLLOUT_STATE.
    """
    _refuse_state(await registry.read(lambda view: known(view, name)), RolloutInput.RETRY)
    now, requeued = clock.now(), 0
    if devices:
        again = await registry.read(lambda view: _named_again(view, name, devices))
        requeued = await registry.write(partial(_requeue, parts=again, now=now))
    else:
        after: DeviceId | None = DeviceId("")
        while after is not None:
            again, after = await registry.read(partial(_page_again, name=name, after=after))
            requeued += await registry.write(partial(_requeue, parts=again, now=now))
    reason = f"{requeued} devices again"
    await registry.write(lambda tx: _go_on(tx, name, reason, now))
    return requeued


async def retriable(registry: Registry, name: str, devices: Sequence[str] = ()) -> int:
    """How many devices `retry` would put into the queue again; nothing is changed.

    Raises:
        Problem: as `retry`.
    """
    _refuse_state(await registry.read(lambda view: known(view, name)), RolloutInput.RETRY)
    if devices:
        return len(await registry.read(lambda view: _named_again(view, name, devices)))
    found = 0
    after: DeviceId | None = DeviceId("")
    while after is not None:
        again, after = await registry.read(partial(_page_again, name=name, after=after))
        found += len(again)
    return found


async def look(registry: Registry, name: str) -> RolloutView:
    """One rollout.

    Raises:
        Problem: ROLLOUT_UNKNOWN.
    """
    return await registry.read(lambda view: _view(view, known(view, name)))


async def newest(registry: Registry, limit: int) -> list[RolloutView]:
    """The newest first."""
    return await registry.read(
        lambda view: [_view(view, rollout) for rollout in view.rollouts(limit)]
    )


async def moving(registry: Registry) -> list[RolloutView]:
    """Those for which there is something left to do, the oldest first."""
    return await registry.read(
        lambda view: [_view(view, rollout) for rollout in view.moving_rollouts()]
    )


def known(view: ReadTransaction, name: str) -> Rollout:
    """The rollout of this name.

    Raises:
        Problem: ROLLOUT_UNKNOWN.
    """
    rollout = view.rollout(name)
    if rollout is None:
        raise Problem(
            ProblemCode.ROLLOUT_UNKNOWN,
            f"There is no rollout {name!r}.",
            "See 'muster update rollouts'.",
        )
    return rollout


_LEADS_TO: Final = {
    RolloutInput.RELEASE: RolloutState.RUNNING,
    RolloutInput.PAUSE: RolloutState.PAUSED,
    RolloutInput.RESUME: RolloutState.RUNNING,
    RolloutInput.CANCEL: RolloutState.CANCELLED,
}
_AGAIN: Final = FAILED | {Progress.CANCELLED, Progress.CANCELLING}


def _view(view: ReadTransaction, rollout: Rollout) -> RolloutView:
    name = rollout.name
    tally, codes = view.tally(name), view.failure_codes(name)
    return RolloutView(rollout, tally, codes, view.count_prepared(name))


def _image(path: str, published: Sequence[PublishedTarget]) -> Image:
    for each in published:
        if each.path == path:
            return Image(each.path, each.sha256, each.length, each.facts)
    raise UpdateError(
        UpdateCode.IMAGE_UNKNOWN,
        f"{path!r} isn't published",
        "see 'muster update status'; sign and publish it first",
    )


def _refuse(view: ReadTransaction, rollout: Rollout) -> None:
    if view.rollout(rollout.name) is not None:
        raise Problem(
            ProblemCode.ROLLOUT_EXISTS,
            f"There is a rollout {rollout.name!r} already.",
            "Give another --name; to offer it to those who failed again: 'muster update retry'.",
        )
    selection = rollout.selection
    for each in selection.devices:
        if view.device(each) is None:
            raise unknown_device(each)
    if selection.group is not None and view.group(GroupName(selection.group)) is None:
        raise unknown_group(selection.group)
    if not selection.grows and not selection.devices:
        raise _invalid("No device was named.", "Give --devices, --group or --all.")


def _preview_page(
    view: ReadTransaction, rollout: Rollout, after: str
) -> tuple[Counter[str], str | None]:
    devices, last = page(view, rollout, after)
    counts: Counter[str] = Counter()
    following = replace(rollout, number=view.newest_rollout_number() + 1)
    for device in devices:
        part = part_of(rollout, device.id, 0, rollout.started_at)
        software = view.device_update(device.id) or DeviceUpdate(device.id)
        made = offer(following, part, device, software)
        counts[made.code if isinstance(made, Skip) else TOLD] += 1
    return counts, last


def _named_again(view: ReadTransaction, name: str, devices: Sequence[str]) -> list[Part]:
    again = []
    for each in dict.fromkeys(devices):
        part = view.part(name, DeviceId(each))
        if part is None:
            raise Problem(
                ProblemCode.DEVICE_UNKNOWN,
                f"The rollout {name!r} doesn't concern a device {each!r}.",
                f"See 'muster update rollout {name} --devices'.",
            )
        if part.progress in _AGAIN or part.progress is Progress.SKIPPED:
            again.append(part)
    return again


def _requeue(tx: WriteTransaction, parts: Sequence[Part], now: datetime) -> int:
    """How many of them stand in the queue by this act; who has moved on since doesn't."""
    requeued = 0
    for each in parts:
        part = tx.part(each.rollout, each.device_id)
        if part == each:
            part = _again(each, now)
            tx.save_part(part)
        requeued += part is not None and (part.code, part.changed_at) == (AGAIN, now)
    return requeued


def _go_on(tx: WriteTransaction, name: str, reason: str, now: datetime) -> None:
    rollout = known(tx, name)
    if (rollout.state_at, rollout.reason) != (now, reason):
        change(tx, name, RolloutInput.RETRY, reason, now)


def _page_again(
    view: ReadTransaction, name: str, after: DeviceId
) -> tuple[list[Part], DeviceId | None]:
    some = view.parts(name, sorted(_AGAIN), after, _PAGE)
    # Who was taken over by a newer rollout isn't to be taken back to an older image.
    again = [part for part in some if part.code != SUPERSEDED]
    return again, some[-1].device_id if len(some) == _PAGE else None


def _again(part: Part, now: datetime) -> Part:
    return replace(
        part,
        progress=next_progress(part.progress, Step.REQUEUE),
        changed_at=now,
        wave=part.wave if part.wave == LATE else 0,
        code=AGAIN,
        detail=None,
    )


def _refuse_state(rollout: Rollout, wanted: RolloutInput) -> None:
    try:
        next_rollout_state(rollout.state, wanted)
    except RolloutError:
        raise Problem(
            ProblemCode.ROLLOUT_STATE,
            f"The rollout {rollout.name!r} is {rollout.state}; it can't {wanted}.",
            "Start another with 'muster update push', under another --name.",
        ) from None


def _invalid(message: str, remedy: str) -> Problem:
    return Problem(ProblemCode.VALUE_INVALID, message, remedy)
