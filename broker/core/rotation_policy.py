"""What becomes of one device of a campaign: whether it needs an order, and when it has followed."""

from collections.abc import Sequence
from datetime import datetime

from broker.core.campaign import Campaign, Rotation, RotationState
from broker.core.lifecycle import MEMBERS, CertificateState, DeviceState
from broker.core.records import Certificate, Device

HELD = (DeviceState.PENDING, DeviceState.SUSPENDED)
"""Who may be a member in a moment, by the key that it has: it isn't forgotten, but waited for."""


def at_its_turn(
    campaign: Campaign, device: Device | None, certificates: Sequence[Certificate]
) -> RotationState:
    """ORDERED when it is to be ordered; DONE when it has renewed already; WAITING for as long as it
    is held; else DROPPED.

    Args:
        campaign: whose turn it is.
        device: the device as it is now.
        certificates: all that it ever had, oldest first.
    """
    if device is None or device.state not in (*MEMBERS, *HELD):
        return RotationState.DROPPED
    if any(_is_proven(c) and c.not_before >= campaign.fresh_from for c in certificates):
        return RotationState.DONE
    return RotationState.WAITING if device.state in HELD else RotationState.ORDERED


def after_order(
    rotation: Rotation, device: Device | None, certificates: Sequence[Certificate]
) -> RotationState:
    """What has become of an order: still ORDERED, or followed, or nobody's any more.

    Who is suspended keeps it, and follows when it's let in again.

    Followed is also what led to a certificate without the order having been read: any certificate
    that was issued after it and proven. Which those are is told by their order of issue: the clock
    may have been set meanwhile. One that was on its way already counts if it was asked for again
    with the order's version, or a later one.
    """
    if device is None or device.state not in (*MEMBERS, DeviceState.SUSPENDED):
        return RotationState.DROPPED
    issued_after = _issued_after(rotation, certificates)
    wanted = rotation.version or 0
    by_order = [c for c in certificates if (c.rotation_order or -1) >= wanted]
    is_done = any(_is_proven(c) for c in (*issued_after, *by_order))
    return RotationState.DONE if is_done else RotationState.ORDERED


def next_version(last: int | None, now: datetime) -> int:
    """The version of a device's next order: above its last one, if there is one.

    It is made of the time, so that a registry that was restored from a backup doesn't give a
    version again which the device has seen.
    """
    return max((last or 0) + 1, int(now.timestamp()))


def _issued_after(rotation: Rotation, certificates: Sequence[Certificate]) -> Sequence[Certificate]:
    for position, certificate in enumerate(certificates):
        if certificate.serial == rotation.newest_before:
            return certificates[position + 1 :]
    return certificates


def _is_proven(certificate: Certificate) -> bool:
    is_revoked = certificate.state is CertificateState.REVOKED
    return certificate.confirmed_at is not None and not is_revoked
