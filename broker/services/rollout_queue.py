"""Who is meant by a rollout: put into its queue, at the start and when devices join later.

The queue's order has nothing to do with the names, so that a first wave isn't one batch of a
factory.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from broker.core.records import Device
from broker.core.rollout import ALIVE, Progress, Rollout
from broker.core.rollout_offer import MAY_BE_TOLD
from broker.core.rollout_steps import LATE
from broker.core.update_records import Part
from broker.ports.clock import Clock
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry, WriteTransaction
from broker.protocol.names import DeviceId

PAGE: Final = 1000
_PAGES_AT_ONCE: Final = 20


class RolloutQueue:
    """Fills queues from the registry, a page at a time."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def fill(self, rollout: Rollout) -> bool:
        """Enlists who is meant; whether everybody who was there at the start stands in it now."""
        name = rollout.name
        for _ in range(_PAGES_AT_ONCE):
            if rollout.enlisted:
                break
            rollout = await self._registry.write(lambda tx: _enlist(tx, name, self._now()))
        if rollout.enlisted and rollout.selection.grows:
            await self._join(rollout)
        return rollout.enlisted

    async def _join(self, rollout: Rollout) -> None:
        joined = await self._registry.read(lambda view: view.joined_after(rollout.joined_to, PAGE))
        if joined:
            await self._registry.write(lambda tx: _add_late(tx, rollout.name, joined, self._now()))

    def _now(self) -> datetime:
        return self._clock.now()


def _enlist(tx: WriteTransaction, name: str, now: datetime) -> Rollout:
    rollout = tx.rollout(name)
    if rollout is None:
        raise LookupError(f"the rollout {name} is gone")
    if rollout.state not in ALIVE:
        return replace(rollout, enlisted=True)
    devices, last = page(tx, rollout, rollout.enlisted_to)
    known = {part.device_id for part in tx.parts_of(name, [device.id for device in devices])}
    for device in devices:
        if device.id not in known:
            tx.save_part(part_of(rollout, device.id, 0, now))
    rollout = replace(rollout, enlisted=last is None, enlisted_to=last or rollout.enlisted_to)
    tx.save_rollout(rollout)
    return rollout


def page(view: ReadTransaction, rollout: Rollout, after: str) -> tuple[list[Device], str | None]:
    """The members among the next devices that are meant, and up to which name that goes; none when
    there are no more."""
    selection = rollout.selection
    if not selection.grows:
        names = [each for each in sorted(selection.devices) if each > after][:PAGE]
        found = [device for each in names if (device := view.device(each)) is not None]
        is_last, last = len(names) < PAGE, names[-1] if names else after
    else:
        wanted = DeviceFilter(group=selection.group, after=DeviceId(after) or None, limit=PAGE)
        found = view.devices(wanted)
        is_last, last = len(found) < PAGE, found[-1].id if found else after
    return [each for each in found if each.state in MAY_BE_TOLD], None if is_last else last


def _add_late(
    tx: WriteTransaction, name: str, joined: Sequence[tuple[int, DeviceId]], now: datetime
) -> None:
    rollout = tx.rollout(name)
    if rollout is None:
        return
    for _, device_id in joined:
        device = tx.device(device_id)
        if device is None or device.state not in MAY_BE_TOLD:
            continue
        is_meant = rollout.selection.everyone or device.group == rollout.selection.group
        if is_meant and tx.part(name, device_id) is None:
            tx.save_part(part_of(rollout, device_id, LATE, now))
    tx.save_rollout(replace(rollout, joined_to=joined[-1][0]))


def part_of(rollout: Rollout, device_id: DeviceId, wave: int, now: datetime) -> Part:
    """A device that is queued in a wave; its place in it is drawn from the two names."""
    draw = hashlib.sha256(f"{rollout.name}\n{device_id}".encode()).digest()
    return Part(
        rollout=rollout.name,
        device_id=device_id,
        progress=Progress.QUEUED,
        changed_at=now,
        wave=wave,
        draw=int.from_bytes(draw[:7], "big"),
    )
