"""Advancing rollouts: who is told next, when a wave opens, and when all of it must stop.

The stop rule looks at what devices have reported at the end, and is looked at again in the very
transaction that tells the next ones.
"""

import asyncio
import math
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from broker.core.records import Event, EventKind
from broker.core.rollout import (
    ALIVE,
    IN_FLIGHT,
    Progress,
    Rollout,
    RolloutInput,
    RolloutState,
    Step,
    next_progress,
    next_rollout_state,
)
from broker.core.rollout_offer import GONE
from broker.core.rollout_pace import refilled
from broker.core.rollout_steps import LATE, broken_by, is_finished, opens_next_wave, room
from broker.core.update_records import Part
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.ports.updates import UpdateRepository
from broker.protocol.topics import Desired, desired_topic
from broker.services.assigning import BATCH, PAGE, Assigner
from broker.services.assignment_renewal import AssignmentRenewal
from broker.services.rollout_queue import RolloutQueue

SILENT_AFTER: Final = timedelta(days=1)
"""A device that hasn't said anything for so long is switched off: the next wave doesn't wait for
it. What it was told still holds."""
_STEPS_AT_ONCE: Final = 40
_PREPARED_AT_ONCE: Final = 2
_PREPARE_AGAIN_S: Final = 60.0
_LOOK_FOR_GONE_S: Final = 60.0
EVENTS: Final = {
    RolloutInput.RELEASE: EventKind.ROLLOUT_RELEASED,
    RolloutInput.PAUSE: EventKind.ROLLOUT_PAUSED,
    RolloutInput.RESUME: EventKind.ROLLOUT_RESUMED,
    RolloutInput.ABORT: EventKind.ROLLOUT_ABORTED,
    RolloutInput.CANCEL: EventKind.ROLLOUT_CANCELLED,
    RolloutInput.RETRY: EventKind.ROLLOUT_RETRIED,
    RolloutInput.FINISH: EventKind.ROLLOUT_DONE,
}


@dataclass(frozen=True)
class _Next:
    """What a rollout does next; nothing when all of it is empty."""

    rollout: Rollout
    tell: int = 0
    """So many of the queue."""
    wave: int = 0
    """Of theirs."""
    prepare: int = 0
    """So many of the queue are next, but not yet."""
    happens: RolloutInput | None = None
    reason: str | None = None
    opens_wave: bool = False


@dataclass(frozen=True)
class _Ahead:
    """How far a rollout's queue has been signed ahead."""

    most: int
    after: int
    """A draw: it goes on from there."""
    upto: int | None
    """A draw, too; none when all of them are prepared."""
    again_s: float = math.inf
    """When to begin anew: what is prepared doesn't stay usable for ever."""


class Director:
    """Keeps rollouts going; to be called several times a second."""

    def __init__(
        self,
        registry: Registry,
        repository: UpdateRepository,
        clock: Clock,
        assigner: Assigner,
        renewal: AssignmentRenewal,
    ) -> None:
        self._registry = registry
        self._repository = repository
        self._clock = clock
        self._assigner = assigner
        self._renewal = renewal
        self._queue = RolloutQueue(registry, clock)
        self._looked_for_gone_s: dict[str, float] = {}
        self._ahead: dict[str, _Ahead] = {}

    async def advance(self) -> int:
        """Does what is due; returns how many devices were told something.

        Raises:
            UpdateError: the repository or its director's key can't be used.
        """
        told = 0
        for rollout in await self._registry.read(lambda view: view.moving_rollouts()):
            if rollout.state in ALIVE:
                told += await self._go_on(rollout)
            else:
                told += await self._call_back(rollout)
        return told + await self._renewal.renew()

    async def _go_on(self, rollout: Rollout) -> int:
        if not await self._queue.fill(rollout):
            return 0
        await self._let_go_of_gone(rollout)
        total = 0
        for _ in range(_STEPS_AT_ONCE):
            step = await self._look(rollout.name)
            told = await self._step(step)
            if told is None:
                await self._prepare(step)
                break
            total += told
        return total

    async def _look(self, name: str) -> _Next:
        now = self._clock.now()
        return await self._registry.read(lambda view: _look(view, name, now))

    async def _step(self, step: _Next) -> int | None:
        """How many were told; none when there is nothing to do at the moment."""
        name, now = step.rollout.name, self._clock.now()
        if step.opens_wave:
            await self._registry.write(lambda tx: _open_wave(tx, name, step.rollout.wave + 1))
            return 0
        if step.tell:
            missing = await asyncio.to_thread(self._unpublished, step.rollout)
            if missing is None:
                return await self._assigner.tell(step.rollout, step.wave, step.tell)
            reason = f"{missing} isn't published any more"
            step = replace(step, happens=RolloutInput.PAUSE, reason=reason)
        happens = step.happens
        if happens is RolloutInput.FINISH:
            await self._registry.write(lambda tx: tx.drop_prepared(name, PAGE))
        if happens is not None:
            await self._registry.write(lambda tx: _happen(tx, step, happens, now))
        return 0 if happens is RolloutInput.RELEASE else None

    async def _prepare(self, step: _Next) -> None:
        """Signs ahead, a few at a time, for those who are next."""
        name, now_s = step.rollout.name, self._clock.monotonic()
        if not step.prepare:
            self._ahead.pop(name, None)
            return
        at = self._ahead.get(name)
        if at is None or step.prepare > at.most or now_s >= at.again_s:
            upto = await self._registry.read(lambda view: view.reach(name, 0, step.prepare))
            at = _Ahead(step.prepare, 0, upto)
        for _ in range(_PREPARED_AT_ONCE):
            if at.upto is None:
                break
            following = await self._assigner.prepare(step.rollout, 0, at.after, at.upto)
            if following is None:
                at = replace(at, upto=None, again_s=now_s + _PREPARE_AGAIN_S)
            else:
                at = replace(at, after=following)
        self._ahead[name] = at

    def _unpublished(self, rollout: Rollout) -> str | None:
        published = {(each.path, each.sha256) for each in self._repository.targets()}
        for image in rollout.images:
            if (image.path, image.sha256) not in published:
                return image.path
        return None

    async def _call_back(self, rollout: Rollout) -> int:
        """For a rollout that has ended before its devices have."""
        code, now = f"rollout_{rollout.state}", self._clock.now()
        queued, flying = await self._registry.read(
            lambda view: (
                view.parts(rollout.name, [Progress.QUEUED], None, PAGE),
                view.parts(rollout.name, sorted(IN_FLIGHT), None, PAGE),
            )
        )
        if queued:
            await self._registry.write(lambda tx: _withdraw(tx, queued, code, now))
        if flying:
            return await self._assigner.call_back(rollout, flying, code)
        if not queued:
            await self._registry.write(lambda tx: _rest(tx, rollout.name))
            self._ahead.pop(rollout.name, None)
        return 0

    async def _let_go_of_gone(self, rollout: Rollout) -> None:
        now_s = self._clock.monotonic()
        looked_s = self._looked_for_gone_s.get(rollout.name)
        if looked_s is not None and now_s - looked_s < _LOOK_FOR_GONE_S:
            return
        self._looked_for_gone_s[rollout.name] = now_s
        gone = await self._registry.read(lambda view: view.gone_parts(rollout.name, PAGE))
        if gone:
            now = self._clock.now()
            await self._registry.write(lambda tx: _let_go(tx, gone, now))


def _look(view: ReadTransaction, name: str, now: datetime) -> _Next:
    rollout = view.rollout(name)
    if rollout is None:
        raise LookupError(f"the rollout {name} is gone")
    if rollout.state not in ALIVE:
        return _Next(rollout)
    tally = view.tally(name)
    broken = broken_by(rollout, tally)
    if broken is not None:
        return _Next(rollout, happens=RolloutInput.ABORT, reason=broken)
    if rollout.state is RolloutState.PAUSED:
        return _Next(rollout)
    if rollout.state is RolloutState.HELD:
        release_at = rollout.timing.release_at
        if release_at is not None and release_at <= now:
            return _Next(rollout, happens=RolloutInput.RELEASE, reason="as planned")
        # It comes after all that have started until it's released.
        following = replace(rollout, number=view.newest_rollout_number() + 1)
        return _Next(following, prepare=room(rollout, tally).in_waves)
    if is_finished(rollout, tally):
        return _Next(rollout, happens=RolloutInput.FINISH)
    left, tokens = room(rollout, tally), refilled(rollout.pace, rollout.bucket, now).tokens
    most = int(min(BATCH, tokens))
    if most >= 1 and left.in_waves:
        return _Next(rollout, tell=min(most, left.in_waves))
    if most >= 1 and left.late:
        return _Next(rollout, tell=min(most, left.late), wave=LATE)
    silent = _count_silent(view, rollout, now - SILENT_AFTER)
    if opens_next_wave(rollout, tally, silent):
        return _Next(rollout, opens_wave=True)
    return _Next(rollout, prepare=room(replace(rollout, wave=rollout.wave + 1), tally).in_waves)


def _count_silent(view: ReadTransaction, rollout: Rollout, since: datetime) -> int:
    not_before = rollout.timing.not_before
    # Whoever waits for the window has had one within the day; but a later moment is waited for.
    switches = [Progress.WAITING] if not_before is None or not_before < since else []
    return view.count_silent(
        rollout.name, [Progress.ASSIGNED, Progress.DOWNLOADING, *switches], since
    )


def _happen(tx: WriteTransaction, step: _Next, happens: RolloutInput, now: datetime) -> None:
    """Unless it has happened, or the operator has steered it elsewhere meanwhile."""
    rollout = tx.rollout(step.rollout.name)
    if rollout is not None and rollout.state is step.rollout.state:
        change(tx, rollout.name, happens, step.reason, now)


def change(
    tx: WriteTransaction, name: str, happens: RolloutInput, reason: str | None, now: datetime
) -> Rollout:
    """Takes the rollout to its next state, with an audit event.

    Raises:
        RolloutError: it can't do that in the state that it's in.
    """
    rollout = tx.rollout(name)
    if rollout is None:
        raise LookupError(f"the rollout {name} is gone")
    is_released = happens is RolloutInput.RELEASE
    changed = replace(
        rollout,
        state=next_rollout_state(rollout.state, happens),
        number=tx.newest_rollout_number() + 1 if is_released else rollout.number,
        state_at=now,
        reason=reason,
        moving=happens is not RolloutInput.FINISH,
        # What the rate would have allowed meanwhile isn't made up for.
        bucket=None,
    )
    tx.save_rollout(changed)
    detail = f"rollout {name}" if reason is None else f"rollout {name}: {reason}"
    tx.add_event(Event(now, EVENTS[happens], group=rollout.selection.group, detail=detail))
    return changed


def _open_wave(tx: WriteTransaction, name: str, wave: int) -> None:
    rollout = tx.rollout(name)
    if rollout is not None and rollout.wave == wave - 1:
        tx.save_rollout(replace(rollout, wave=wave))


def _withdraw(tx: WriteTransaction, queued: list[Part], code: str, now: datetime) -> None:
    for each in queued:
        part = tx.part(each.rollout, each.device_id)
        if part is not None and part.progress is Progress.QUEUED:
            progress = next_progress(part.progress, Step.WITHDRAW)
            tx.save_part(replace(part, progress=progress, changed_at=now, code=code))


def _rest(tx: WriteTransaction, name: str) -> None:
    rollout = tx.rollout(name)
    if tx.drop_prepared(name, PAGE) == PAGE:
        return
    if rollout is not None and rollout.state in (RolloutState.ABORTED, RolloutState.CANCELLED):
        tx.save_rollout(replace(rollout, moving=False))


def _let_go(tx: WriteTransaction, gone: list[Part], now: datetime) -> None:
    topics = {}
    for each in gone:
        part = tx.part(each.rollout, each.device_id)
        if part is None or part.progress not in IN_FLIGHT or part.sequence is None:
            continue
        progress = next_progress(part.progress, Step.SKIP)
        tx.save_part(replace(part, progress=progress, changed_at=now, code=GONE))
        held = tx.given_assignment(part.device_id, part.sequence)
        if held is not None:
            tx.save_assignment(replace(held, settled_at=now))
        topics[desired_topic(part.device_id, Desired.UPDATE)] = b""
    tx.retain(topics)
