"""What an operator's act changes: the device, and what its certificates are good for."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.core.lifecycle import CertificateState, DeviceInput, DeviceState, next_device_state
from broker.core.records import Certificate, Device, EventKind, RevocationReason

ACTS: Final[dict[DeviceInput, DeviceState]] = {
    DeviceInput.SUSPEND: DeviceState.SUSPENDED,
    DeviceInput.RESUME: DeviceState.ACTIVE,
    DeviceInput.REVOKE: DeviceState.REVOKED,
    DeviceInput.RECLAIM: DeviceState.REGISTERED,
    DeviceInput.RETIRE: DeviceState.RETIRED,
}
"""What an operator may do, and where it leads."""

EVENTS: Final[dict[DeviceInput, EventKind]] = {
    DeviceInput.SUSPEND: EventKind.DEVICE_SUSPENDED,
    DeviceInput.RESUME: EventKind.DEVICE_RESUMED,
    DeviceInput.REVOKE: EventKind.DEVICE_REVOKED,
    DeviceInput.RECLAIM: EventKind.DEVICE_RECLAIMED,
    DeviceInput.RETIRE: EventKind.DEVICE_RETIRED,
}

REVOKED_FOR: Final[dict[DeviceInput, RevocationReason]] = {
    DeviceInput.REVOKE: RevocationReason.OPERATOR,
    DeviceInput.RETIRE: RevocationReason.RETIRED,
}

_UNCOUNTED: Final = {DeviceState.REGISTERED, DeviceState.RETIRED}
"""States that take no place in the group's quota."""


@dataclass(frozen=True)
class Change:
    """What is to be written. All of it belongs into one transaction."""

    device: Device
    counted: int
    """What is to be added to the group's count of devices."""
    revoked: tuple[Certificate, ...] = ()
    """To be revoked for good, as they are now."""
    held: tuple[Certificate, ...] = ()
    """As they are from now on: kept out until the device is resumed, or let in again."""
    concerns_broker: bool = True
    """Whether a broker has to refuse the device, or to let it in again."""


def decide_act(
    device: Device, certificates: Sequence[Certificate], act: DeviceInput, now: datetime
) -> Change | None:
    """What `act` changes; none when the device is already where it leads.

    Args:
        device: whom it concerns.
        certificates: all its certificates that aren't revoked.
        act: one of `ACTS`.
        now: the calendar time.

    Raises:
        TransitionError: a device in this state can't do that.
    """
    is_there = device.state is ACTS[act]
    if is_there or (act is DeviceInput.RESUME and device.state is DeviceState.ROTATING):
        return None
    after = replace(device, state=next_device_state(device.state, act))
    counted = _counts(after) - _counts(device)
    live = tuple(c for c in certificates if c.state is not CertificateState.REVOKED)
    match act:
        case DeviceInput.SUSPEND:
            held = tuple(replace(c, held_at=now) for c in live)
            return Change(after, counted, held=held)
        case DeviceInput.RESUME:
            released = tuple(replace(c, held_at=None) for c in live if c.held_at is not None)
            return Change(after, counted, held=released)
        case DeviceInput.RECLAIM:
            return Change(after, counted, concerns_broker=False)
        case _:
            return Change(after, counted, revoked=live)


def _counts(device: Device) -> int:
    return int(device.state not in _UNCOUNTED)
