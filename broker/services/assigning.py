"""Telling devices what to run: assignments signed, committed, and retained for each alone."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.core.assigning import LIFETIME, given
from broker.core.prepared import Candidate, Prepared
from broker.core.rollout import (
    IN_FLIGHT,
    IN_FORCE,
    Progress,
    Rollout,
    RolloutState,
    Step,
    next_progress,
)
from broker.core.rollout_offer import SUPERSEDED, Skip, Tell, offer
from broker.core.rollout_pace import Bucket, refilled
from broker.core.rollout_steps import LATE, broken_by, room
from broker.core.update_records import DeviceUpdate, Part
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.ports.rollouts import Usable
from broker.protocol.names import DeviceId
from broker.services.assignment_signing import AssignmentSigner, Signed, retain

BATCH: Final = 2000
"""Devices that are told in one go."""
PAGE: Final = 500
"""Of those who are called back in one transaction."""
_TOGETHER: Final = 250
"""Of them, those whose assignments are signed, and committed, together."""
_GOOD_FOR: Final = LIFETIME / 14
"""So long what was prepared may wait; the times of an assignment begin when it's signed."""
_GIVEN_TOGETHER: Final = 1000
"""Of those who are prepared: nothing is done for each alone, so the commit is what counts."""


@dataclass(frozen=True)
class _Chunk:
    """The next of a queue: what is signed for them, and who gets nothing."""

    prepared: Sequence[Prepared]
    skipped: dict[DeviceId, Skip]
    usable: Usable
    following: int
    """The draw from which the queue goes on."""


class Assigner:
    """Signs and commits; `services/retained.py` publishes."""

    def __init__(
        self,
        registry: Registry,
        signer: AssignmentSigner,
        clock: Clock,
        new_nonce: Callable[[], str],
        on_told: Callable[[], None] = lambda: None,
    ) -> None:
        """`on_told` is called when there is something new to publish."""
        self._registry = registry
        self._signer = signer
        self._clock = clock
        self._new_nonce = new_nonce
        self._on_told = on_told

    async def tell(self, rollout: Rollout, wave: int, most: int) -> int:
        """Tells the first `most` of the queue what the rollout has for them, or skips them; returns
        how many were told. Whoever is prepared is told first.

        Args:
            wave: as in the registry's `candidates`.

        Raises:
            UpdateError: the director's key can't be used; who wasn't told yet stays in the queue.
        """
        usable = await self._usable()
        told = await self._tell_prepared(rollout, wave, usable, most)
        left = most - told
        chunk = await self._next(rollout, wave, usable, 0, left)
        while chunk is not None:
            # While one chunk is being written, the next is signed.
            left -= len(chunk.prepared) + len(chunk.skipped)
            try:
                async with asyncio.TaskGroup() as tasks:
                    giving = tasks.create_task(self._give(rollout.name, wave, chunk))
                    following = self._next(rollout, wave, usable, chunk.following, left)
                    preparing = tasks.create_task(following)
            except ExceptionGroup as failures:
                raise failures.exceptions[0] from failures
            told, chunk = told + giving.result(), preparing.result()
        return told

    async def prepare(self, rollout: Rollout, wave: int, after: int, upto: int) -> int | None:
        """Signs for some of the queue, from the draw `after` to `upto`, what they'll be told when
        their turn comes; returns from where to go on, or none when all of them are prepared.

        Raises:
            UpdateError: the director's key can't be used.
        """
        usable = await self._usable()
        chunk = await self._next(rollout, wave, usable, after, _TOGETHER, upto)
        if chunk is None:
            return None
        await self._registry.write(lambda tx: tx.save_prepared(rollout.name, chunk.prepared))
        return chunk.following

    async def _usable(self) -> Usable:
        signed_as = await asyncio.to_thread(self._signer.signed_as)
        return Usable(signed_as, self._clock.now() - _GOOD_FOR)

    async def _tell_prepared(self, rollout: Rollout, wave: int, usable: Usable, most: int) -> int:
        told = 0
        if not await self._registry.read(lambda view: view.has_prepared(rollout.name)):
            return told
        while told < most:
            # The first ones early, so that there is something to publish beside the rest.
            limit = min(_GIVEN_TOGETHER if told else _TOGETHER, most - told)
            given = await self._registry.write(
                lambda tx: _give(tx, rollout.name, wave, usable, limit, self._clock.now())  # noqa: B023
            )
            self._on_told()
            told += given
            if given < limit:
                break
        return told

    async def _next(
        self,
        rollout: Rollout,
        wave: int,
        usable: Usable,
        after: int,
        most: int,
        upto: int | None = None,
    ) -> _Chunk | None:
        limit = min(most, _TOGETHER)
        if limit <= 0:
            return None
        found = await self._registry.read(
            lambda view: view.candidates(rollout.name, wave, usable, after, limit)
        )
        if upto is not None:
            found = [each for each in found if each.part.draw <= upto]
        if not found:
            return None
        offers = [(each, offer(rollout, each.part, each.device, each.known)) for each in found]
        prepared = await asyncio.to_thread(self._signed, rollout, offers, usable)
        skipped = {each.device.id: skip for each, skip in offers if isinstance(skip, Skip)}
        return _Chunk(prepared, skipped, usable, found[-1].part.draw + 1)

    def _signed(
        self, rollout: Rollout, offers: Sequence[tuple[Candidate, Tell | Skip]], usable: Usable
    ) -> list[Prepared]:
        now = self._clock.now()
        prepared = []
        for each, tell in offers:
            if isinstance(tell, Tell):
                new = given(
                    rollout,
                    each.device.id,
                    each.known.sequence + 1,
                    tell.images,
                    self._new_nonce(),
                    now,
                )
                payload = self._signer.sign(new, rollout)
                prepared.append(Prepared(new, payload, each.as_of, usable.signed_as))
        return prepared

    async def _give(self, name: str, wave: int, chunk: _Chunk) -> int:
        now = self._clock.now()

        def work(tx: WriteTransaction) -> int:
            if before := _told_before(tx, chunk.prepared):
                return before
            _skip(tx, name, chunk.skipped, now)
            tx.save_prepared(name, chunk.prepared)
            return _give(tx, name, wave, chunk.usable, len(chunk.prepared), now)

        told = await self._registry.write(work)
        self._on_told()
        return told

    async def call_back(self, rollout: Rollout, parts: Sequence[Part], code: str) -> int:
        """Has those who may still switch stop; returns how many were told."""
        now = self._clock.now()
        known = await self._registry.read(
            lambda view: {each.device_id: _known(view, each.device_id).sequence for each in parts}
        )
        wanted = [
            given(
                rollout,
                part.device_id,
                known[part.device_id] + 1,
                (),
                self._new_nonce(),
                now,
                calls_back=part.sequence,
            )
            for part in parts
        ]
        signed = await self._signer.sign_all([(each, rollout) for each in wanted])
        told = await self._registry.write(lambda tx: _call_back(tx, signed, code, now))
        self._on_told()
        return told


def _known(view: ReadTransaction, device_id: DeviceId) -> DeviceUpdate:
    return view.device_update(device_id) or DeviceUpdate(device_id)


def _told_before(view: ReadTransaction, prepared: Sequence[Prepared]) -> int:
    """How many of them have been told just this; only looked at when the first one has."""
    told = 0
    for each in prepared:
        new = each.given
        held = view.given_assignment(new.device_id, new.sequence)
        if held is None or held.nonce != new.nonce:
            break
        told += 1
    return told


def _give(
    tx: WriteTransaction, name: str, wave: int, usable: Usable, most: int, now: datetime
) -> int:
    rollout = tx.rollout(name)
    # Looked at again where nothing can come between: a report may have broken the stop rule.
    if rollout is None or rollout.state is not RolloutState.RUNNING:
        return 0
    tally = tx.tally(name)
    if broken_by(rollout, tally):
        return 0
    # Run again after its own commit, it mustn't tell more than the wave and the pace allow.
    left, bucket = room(rollout, tally), refilled(rollout.pace, rollout.bucket, now)
    most = int(min(most, left.late if wave == LATE else left.in_waves, bucket.tokens))
    told = tx.give_prepared(rollout, wave, usable, most, now) if most else 0
    if rollout.pace.per_minute is not None:
        tx.save_rollout(replace(rollout, bucket=Bucket(bucket.tokens - told, now)))
    return told


def _skip(tx: WriteTransaction, name: str, skipped: Mapping[DeviceId, Skip], now: datetime) -> None:
    rollout = tx.rollout(name)
    if rollout is None or rollout.state is not RolloutState.RUNNING:
        return
    if skipped and not broken_by(rollout, tx.tally(name)):
        for device_id, skip in skipped.items():
            part = tx.part(name, device_id)
            if part is not None and part.progress is Progress.QUEUED:
                tx.save_part(_moved(part, Step.SKIP, now, skip.code))


def _end_earlier(tx: WriteTransaction, known: DeviceUpdate, name: str, now: datetime) -> None:
    """Ends what held until now; another rollout learns that it has lost the device."""
    if not known.sequence:
        return
    earlier = tx.given_assignment(known.device_id, known.sequence)
    if earlier is None or earlier.settled_at is not None:
        return
    tx.save_assignment(replace(earlier, settled_at=now))
    part = tx.part(earlier.rollout, known.device_id)
    if part is not None and earlier.rollout != name and part.progress in IN_FORCE:
        tx.save_part(_moved(part, Step.SUPERSEDE, now, SUPERSEDED))


def _call_back(tx: WriteTransaction, signed: Sequence[Signed], code: str, now: datetime) -> int:
    told = []
    for each in signed:
        new = each.given
        part, known = tx.part(new.rollout, new.device_id), _known(tx, new.device_id)
        if part is None or part.progress not in IN_FLIGHT or part.sequence != new.calls_back:
            continue
        if known.sequence != new.sequence - 1:
            continue
        _end_earlier(tx, known, new.rollout, now)
        tx.save_assignment(new)
        tx.save_part(replace(_moved(part, Step.WITHDRAW, now, code), sequence=new.sequence))
        tx.save_device_update(replace(known, sequence=new.sequence))
        told.append(each)
    retain(tx, told)
    return len(told)


def _moved(part: Part, step: Step, now: datetime, code: str | None) -> Part:
    return replace(part, progress=next_progress(part.progress, step), changed_at=now, code=code)
