"""Ending the connections of those who were put out: a CRL is looked at in handshakes only.

What is owed stands in the registry. A broker that is down, or a service that is killed, leaves it
there, and the next run goes on with it.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime

from broker.core.lifecycle import DeviceInput
from broker.core.lock_out import CAN_WAIT, is_due, is_over
from broker.core.records import Event, EventKind, LockOut
from broker.ports.brokers import BrokerControl
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol.names import DeviceId

BATCH = 200
"""Lock-outs that are carried out together; the next batch's CRL isn't kept waiting for longer."""
_OF_WHAT_CAN_WAIT = 50
"""How many of a batch: an operator's act may come at any moment, and waits for no more of them."""
_AT_ONCE = 8
_KICKS_A_PASS = 250
"""So that a mass revocation takes a part of a broker's time, and not all of it."""
_OTHERS_A_PASS = 100
"""Beside those: of what can wait."""
_SUSPECTS_A_PASS = 100
_OPEN_AT_MOST = 100_000


@dataclass
class _Watched:
    """A lock-out since this service knows of it, in monotonic seconds."""

    since_s: float
    done_s: float
    looked_s: float
    """When it was last found out whether it's due."""


class LockOuts:
    """Carries lock-outs out, and watches for as long as a broker may let the device in again."""

    def __init__(self, registry: Registry, control: BrokerControl, clock: Clock) -> None:
        self._registry = registry
        self._control = control
        self._clock = clock
        self._watched: dict[str, _Watched] = {}
        self._suspects: deque[DeviceId] = deque()

    async def carry_out(self, waiting: Sequence[LockOut], in_force_at: datetime) -> None:
        """Ends the connections of those in `waiting`, and keeps when that was. Of what can wait
        only some: calling again goes on with the next.

        Args:
            waiting: lock-outs that the CRL in force covers, the most urgent first.
            in_force_at: since when it has been in force.

        Raises:
            Exception: what the broker raised; they stay waiting.
        """
        urgent, others = _by_urgency(waiting)
        now_due = [*urgent, *others[:_OF_WHAT_CAN_WAIT]]
        ended = await self._disconnect(_put_out(now_due))
        await self._registry.write(lambda tx: _keep(tx, now_due, in_force_at, ended))

    async def kick(self, waiting: Sequence[LockOut]) -> None:
        """Ends the connections of those that an operator put out, before any CRL covers it: they
        may come back until then. What fails, `carry_out` does again.

        Args:
            waiting: lock-outs that haven't been carried out.
        """
        urgent, _ = _by_urgency(waiting)
        with suppress(Exception):  # whoever puts the CRL in force finds out, and says so
            await self._disconnect(_put_out(urgent))

    def suspect(self, names: Iterable[DeviceId]) -> None:
        """Has `watch` throw off those of `names` that have no live certificate: a broker may have
        gone without its CRL for a while."""
        self._suspects.extend(names)

    async def watch(self) -> bool:
        """Repeats what is due; to be called once a second while there is more to come, as it says.

        Raises:
            Exception: what the broker raised; calling again goes on.
        """
        now_s = self._clock.monotonic()
        waiting = await self._registry.read(lambda tx: tx.open_lock_outs(_OPEN_AT_MOST))
        carried_out = [each for each in waiting if each.disconnected_at is not None]
        self._remember(carried_out, now_s)
        # Longest ago first, so that each has its turn: also beside many that needn't be repeated.
        carried_out.sort(key=lambda each: self._watched[each.id].looked_s)
        urgent, others = _by_urgency(carried_out)
        await self._repeat([*urgent[:_KICKS_A_PASS], *others[:_OTHERS_A_PASS]], now_s)
        await self._look_at_suspects()
        return bool(waiting or self._suspects)

    def _remember(self, carried_out: Sequence[LockOut], now_s: float) -> None:
        known = self._watched
        # A restart watches from its own start on: calendar time may have been set meanwhile.
        self._watched = {
            each.id: known.get(each.id) or _Watched(now_s, now_s, now_s) for each in carried_out
        }

    async def _repeat(self, lock_outs: Sequence[LockOut], now_s: float) -> None:
        if not lock_outs:
            return
        live = await self._live([each.device_id for each in lock_outs])
        due = []
        for each in lock_outs:
            watched = self._watched[each.id]
            watched.looked_s = now_s
            watched_s, rested_s = now_s - watched.since_s, now_s - watched.done_s
            if is_due(each.act, watched_s, rested_s, each.device_id in live):
                due.append(each)
        await self._disconnect([each.device_id for each in due])
        for each in due:
            self._watched[each.id].done_s = now_s
        over = [each for each in lock_outs if is_over(now_s - self._watched[each.id].since_s)]
        if over:
            now = self._clock.now()
            await self._registry.write(lambda tx: _end(tx, over, now))

    async def _look_at_suspects(self) -> None:
        some = [self._suspects[n] for n in range(min(len(self._suspects), _SUSPECTS_A_PASS))]
        if not some:
            return
        live = await self._live(some)
        await self._disconnect([name for name in some if name not in live])
        for _ in some:
            self._suspects.popleft()

    async def _live(self, names: Sequence[DeviceId]) -> set[DeviceId]:
        now = self._clock.now()
        return await self._registry.read(lambda tx: _with_live_certificate(tx, names, now))

    async def _disconnect(self, names: Sequence[DeviceId]) -> dict[DeviceId, datetime]:
        """Ends their connections, a few at once; when each had ended."""
        left = deque(dict.fromkeys(names))
        ended: dict[DeviceId, datetime] = {}

        async def work() -> None:
            while left:
                name = left.popleft()
                await self._control.disconnect(name)
                ended[name] = self._clock.now()

        try:
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(_AT_ONCE, len(left))):
                    tasks.create_task(work())
        except ExceptionGroup as failures:
            # The broker is down for all of them; one says so as well as eight.
            raise failures.exceptions[0] from failures
        return ended


def _put_out(lock_outs: Sequence[LockOut]) -> list[DeviceId]:
    return [each.device_id for each in lock_outs if each.act is not DeviceInput.RESUME]


def _by_urgency(lock_outs: Sequence[LockOut]) -> tuple[list[LockOut], list[LockOut]]:
    """Operators' acts, and what can wait; each in the order given."""
    urgent = [each for each in lock_outs if each.act not in CAN_WAIT]
    return urgent, [each for each in lock_outs if each.act in CAN_WAIT]


def _with_live_certificate(
    tx: ReadTransaction, names: Sequence[DeviceId], now: datetime
) -> set[DeviceId]:
    return {each.device_id for each in tx.certificates_of(names) if each.is_live(now)}


def _keep(
    tx: WriteTransaction,
    waiting: Sequence[LockOut],
    in_force_at: datetime,
    ended: dict[DeviceId, datetime],
) -> None:
    for each in waiting:
        fresh = tx.lock_out(each.id)
        if fresh is None or fresh.ended_at is not None:
            continue
        crl_at = max(in_force_at, fresh.requested_at)
        gone_at = ended.get(fresh.device_id)
        done = replace(fresh, crl_at=crl_at, disconnected_at=gone_at)
        if fresh.act is DeviceInput.RESUME:
            done = replace(done, ended_at=crl_at)
        if done == fresh:
            continue
        tx.save_lock_out(done)
        if done.act is not DeviceInput.CONFIRM:  # only what was superseded is out, not the device
            tx.add_event(_event(done))


def _end(tx: WriteTransaction, over: Sequence[LockOut], now: datetime) -> None:
    for each in over:
        fresh = tx.lock_out(each.id)
        if fresh is not None and fresh.ended_at is None:
            tx.save_lock_out(replace(fresh, ended_at=now))


def _event(done: LockOut) -> Event:
    at = done.disconnected_at or done.crl_at or done.requested_at
    crl_ms = milliseconds(done, done.crl_at)
    detail = f"{done.act}: CRL in force after {crl_ms} ms"
    if done.disconnected_at is not None:
        detail += f", disconnected after {milliseconds(done, done.disconnected_at)} ms"
    kind = EventKind.DEVICE_LOCKED_OUT
    if done.act is DeviceInput.RESUME:
        kind = EventKind.DEVICE_LET_IN
    return Event(at, kind, device_id=done.device_id, detail=detail)


def milliseconds(lock_out: LockOut, moment: datetime | None) -> int | None:
    """How long after it was asked for that was; none when it hasn't been yet."""
    if moment is None:
        return None
    return max(0, round((moment - lock_out.requested_at).total_seconds() * 1000))
