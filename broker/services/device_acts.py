"""What an operator does to devices: suspend, resume, revoke, reclaim, retire.

Each act is one transaction with its audit event and its lock-out, which the running service carries
out (`broker.services.lock_out`); doing it again changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from itertools import islice

from broker.core.device_acts import EVENTS, REVOKED_FOR, Change, decide_act
from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState, TransitionError
from broker.core.records import Certificate, Device, Event, LockOut
from broker.ports.clock import Clock
from broker.ports.registry import (
    DeviceFilter,
    EventFilter,
    ReadTransaction,
    Registry,
    WriteTransaction,
)
from broker.protocol.names import DeviceId, GroupName
from broker.protocol.topics import Desired, desired_topic
from broker.services.problems import Problem, ProblemCode, unknown_device, unknown_group
from broker.services.revoking import FLEET_CRL_WANTED, revoke_certificate

_AT_ONCE = 200
"""Acts that are given to the registry together; it commits them together, too."""
_PAGE = 1000
MAX_REASON = 200
_WAS = "was_"
"""Before a device's state, in the code of an act's event."""


class Effect(StrEnum):
    """What became of an act on one device."""

    DONE = "done"
    UNCHANGED = "unchanged"
    """It had been done before."""
    IMPOSSIBLE = "impossible"
    """The device is in a state from which this can't be done."""


@dataclass(frozen=True)
class Wanted:
    """An act, and why, in the operator's words."""

    act: DeviceInput
    reason: str | None = None


@dataclass(frozen=True)
class Acted:
    """One device and what became of the act on it."""

    device_id: DeviceId
    effect: Effect
    before: DeviceState
    after: DeviceState
    certificates: int
    """How many of its certificates it concerned."""
    lock_out: LockOut | None = None
    """What the broker owes to it; after a repeated act, to the first."""


async def choose(registry: Registry, ids: Sequence[str], group: str | None) -> list[DeviceId]:
    """The devices that were named and those of the group, each once.

    Raises:
        Problem: DEVICE_UNKNOWN, GROUP_UNKNOWN, or VALUE_INVALID when none was named.
    """
    if not ids and group is None:
        raise Problem(
            ProblemCode.VALUE_INVALID, "No device was named.", "Name devices, or give --group."
        )
    await registry.read(lambda view: _refuse_unknown(view, ids, group))
    chosen = [DeviceId(each) for each in ids]
    if group is not None:
        chosen += await _all(registry, DeviceFilter(group=GroupName(group), limit=_PAGE))
    return list(dict.fromkeys(chosen))


async def found(registry: Registry, wanted: DeviceFilter) -> list[Device]:
    """All devices that `wanted` finds."""
    devices: list[Device] = []
    while page := await _page(registry, wanted):
        devices += page
        wanted = replace(wanted, after=page[-1].id)
    return devices


async def _page(registry: Registry, wanted: DeviceFilter) -> list[Device]:
    return await registry.read(lambda view: view.devices(wanted))


async def plan(
    registry: Registry, now: datetime, ids: Sequence[DeviceId], wanted: Wanted
) -> list[Acted]:
    """What `carry_out` would do; nothing is changed."""

    def work(view: ReadTransaction) -> list[Acted]:
        return [_decide(view, each, wanted, now)[0] for each in ids]

    return await registry.read(work)


async def carry_out(
    registry: Registry, clock: Clock, devices: Sequence[tuple[DeviceId, str]], wanted: Wanted
) -> AsyncIterator[Acted]:
    """Acts on each device in a transaction of its own; durable when it comes out.

    Args:
        devices: whom, and a fresh id for the lock-out of each.
        wanted: what to do.

    Raises:
        RegistryError: the registry failed; what hasn't come out may be done or not.
    """
    waiting = iter(devices)
    while some := list(islice(waiting, _AT_ONCE)):
        async with asyncio.TaskGroup() as tasks:
            acts = [
                tasks.create_task(_carry_out(registry, clock, device_id, new_id, wanted))
                for device_id, new_id in some
            ]
        for act in acts:
            yield act.result()


async def broken_off(
    registry: Registry, devices: Sequence[tuple[DeviceId, str]], wanted: Wanted, since: datetime
) -> list[Acted]:
    """What stands in the registry after a `carry_out` that was broken off; whom it hadn't come to,
    and whom it hadn't to change, are left out.

    Args:
        devices: those that `carry_out` was given.
        wanted: what it was to do.
        since: when it began.
    """

    def work(view: ReadTransaction) -> list[Acted]:
        done = (_done_by_it(view, each, new_id, wanted, since) for each, new_id in devices)
        return [each for each in done if each is not None]

    return await registry.read(work)


def _done_by_it(
    view: ReadTransaction, device_id: DeviceId, new_id: str, wanted: Wanted, since: datetime
) -> Acted | None:
    acted, _, _ = _decide(view, device_id, wanted, since)
    if acted.effect is not Effect.UNCHANGED:
        return None
    return _done_by_this(view, acted, new_id, wanted, lambda at: at >= since)


async def _carry_out(
    registry: Registry, clock: Clock, device_id: DeviceId, new_id: str, wanted: Wanted
) -> Acted:
    now = clock.now()
    return await registry.write(lambda tx: act_on(tx, device_id, new_id, wanted, now))


def act_on(
    tx: WriteTransaction, device_id: DeviceId, new_id: str, wanted: Wanted, now: datetime
) -> Acted:
    """The act on one device, inside a transaction."""
    acted, change, device = _decide(tx, device_id, wanted, now)
    if change is None:
        return _done_by_this(tx, acted, new_id, wanted, lambda at: at == now) or acted
    tx.save_device(change.device)
    if change.counted:
        tx.count_device(device.group, change.counted)
    for certificate in change.revoked:
        # Also what was held: from now on it is out for good.
        final = replace(certificate, held_at=None)
        revoke_certificate(tx, device, final, REVOKED_FOR[wanted.act], now)
    if wanted.act in REVOKED_FOR:
        _forget_order(tx, device_id)
    for certificate in change.held:
        tx.save_certificate(certificate)
    if change.held:
        tx.raise_counter(FLEET_CRL_WANTED)
    tx.add_event(_event(device, wanted, acted.certificates, now))
    if not change.concerns_broker:
        return acted
    lock_out = ask_lock_out(
        tx, new_id, device_id, wanted.act, (*change.revoked, *change.held), now, wanted.reason
    )
    return replace(acted, lock_out=lock_out)


def _done_by_this(
    view: ReadTransaction,
    acted: Acted,
    new_id: str,
    wanted: Wanted,
    is_its_time: Callable[[datetime], bool],
) -> Acted | None:
    """What this very act has done; none when it hasn't: the work may be run twice."""
    if acted.lock_out is not None and acted.lock_out.id != new_id:
        return None
    about = EventFilter(device_id=acted.device_id, kind=EVENTS[wanted.act], limit=1)
    for event in view.events(about):
        if is_its_time(event.at) and event.code is not None:
            before = DeviceState(event.code.removeprefix(_WAS))
            count = len(acted.lock_out.serials) if acted.lock_out else 0
            return replace(acted, effect=Effect.DONE, before=before, certificates=count)
    return None


def _forget_order(tx: WriteTransaction, device_id: DeviceId) -> None:
    """Should it be reclaimed, it would take an old order to renew for a new one."""
    topic = desired_topic(device_id, Desired.ROTATION)
    kept = tx.retained(topic)
    if kept is not None and kept.payload:
        tx.retain({topic: b""})


def ask_lock_out(
    tx: WriteTransaction,
    new_id: str,
    device_id: DeviceId,
    act: DeviceInput,
    certificates: Sequence[Certificate],
    now: datetime,
    reason: str | None = None,
) -> LockOut:
    """Has the running service put the device out (or let it in again), once this is durable.

    Whatever was still owed to an earlier act ends: the later one says where the device stands.
    """
    for earlier in tx.lock_outs_of(device_id):
        if earlier.ended_at is None:
            tx.save_lock_out(replace(earlier, ended_at=now))
    lock_out = LockOut(
        id=new_id,
        device_id=device_id,
        act=act,
        serials=tuple(certificate.serial for certificate in certificates),
        requested_at=now,
        crl_wanted=tx.counter(FLEET_CRL_WANTED),
        reason=reason,
    )
    tx.save_lock_out(lock_out)
    return lock_out


def _decide(
    view: ReadTransaction, device_id: DeviceId, wanted: Wanted, now: datetime
) -> tuple[Acted, Change | None, Device]:
    device = view.device(device_id)
    if device is None:
        raise unknown_device(device_id)
    live = [c for c in view.certificates_of([device_id]) if c.state is not CertificateState.REVOKED]
    try:
        change = decide_act(device, live, wanted.act, now)
    except TransitionError:
        return Acted(device_id, Effect.IMPOSSIBLE, device.state, device.state, 0), None, device
    if change is None:
        last = view.lock_outs_of(device_id)[-1:]
        lock_out = last[0] if last and last[0].act is wanted.act else None
        return (
            Acted(device_id, Effect.UNCHANGED, device.state, device.state, 0, lock_out),
            None,
            device,
        )
    count = len(change.revoked) + len(change.held)
    return Acted(device_id, Effect.DONE, device.state, change.device.state, count), change, device


def _refuse_unknown(view: ReadTransaction, ids: Sequence[str], group: str | None) -> None:
    for each in ids:
        if view.device(DeviceId(each)) is None:
            raise unknown_device(each)
    if group is not None and view.group(GroupName(group)) is None:
        raise unknown_group(group)


async def _all(registry: Registry, wanted: DeviceFilter) -> list[DeviceId]:
    return [device.id for device in await found(registry, wanted)]


def _event(device: Device, wanted: Wanted, certificates: int, now: datetime) -> Event:
    concerned = f"{certificates} certificates"
    return Event(
        at=now,
        kind=EVENTS[wanted.act],
        device_id=device.id,
        serial_number=device.serial,
        group=device.group,
        code=f"{_WAS}{device.state}",
        detail=f"{concerned}: {wanted.reason}" if wanted.reason else concerned,
    )
