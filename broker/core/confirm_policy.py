"""What becomes of a device that proves its certificate by having connected with it."""

from dataclasses import dataclass
from datetime import datetime

from broker.core.lifecycle import MEMBERS, CertificateState, DeviceState
from broker.core.records import Certificate, Device
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId

_MAY_CONFIRM = MEMBERS | {DeviceState.PENDING}


@dataclass(frozen=True)
class Activate:
    """The certificate is proven now, and the older ones have had their time."""

    replaced: tuple[Certificate, ...]
    """To be revoked at once: a claim has begun the device anew."""
    superseded: tuple[Certificate, ...] = ()
    """Still good for the time of grace: the device has renewed."""


@dataclass(frozen=True)
class AlreadyActive:
    """The certificate had been proven before; nothing changes."""


def own_certificate(device_id: DeviceId, certificate: Certificate | None) -> Certificate:
    """The certificate that the device names as its own, by whose key it has to sign.

    Args:
        device_id: for whom the broker vouches.
        certificate: the one that is named; none when there is no such.

    Raises:
        Refused: CERTIFICATE_UNKNOWN.
    """
    if certificate is None or certificate.device_id != device_id:
        raise Refused(Code.CERTIFICATE_UNKNOWN)
    return certificate


def decide_confirm(
    device: Device | None,
    certificate: Certificate | None,
    certificates: tuple[Certificate, ...],
    now: datetime,
) -> Activate | AlreadyActive:
    """What becomes of the confirmation, whose signature has been verified.

    Args:
        device: the device that the broker vouches for; none when the registry doesn't know it.
        certificate: the one that it says it connected with; none when there is no such.
        certificates: all the device's certificates that aren't revoked.
        now: the calendar time.

    Raises:
        Refused: CERTIFICATE_UNKNOWN, CERTIFICATE_REVOKED, CERTIFICATE_EXPIRED,
            CERTIFICATE_SUPERSEDED or DEVICE_BLOCKED.
    """
    if device is None or certificate is None or certificate.device_id != device.id:
        raise Refused(Code.CERTIFICATE_UNKNOWN)
    is_held = certificate.held_at is not None and device.state is DeviceState.SUSPENDED
    if not certificate.is_live(now) and not is_held:
        raise Refused(_why_not_live(certificate, now))
    if device.state not in _MAY_CONFIRM:
        raise Refused(Code.DEVICE_BLOCKED)
    if certificate.state is CertificateState.ACTIVE:
        return AlreadyActive()
    if certificate.state is CertificateState.SUPERSEDED:
        # Accepting would leave the device with a certificate that ends in a moment, and content.
        raise Refused(Code.CERTIFICATE_SUPERSEDED)
    others = tuple(c for c in certificates if c.serial != certificate.serial)
    if certificate.claim_name is not None:
        return Activate(replaced=others)
    # One that was superseded before keeps the time that it was given then.
    return Activate((), tuple(c for c in others if c.state is not CertificateState.SUPERSEDED))


def _why_not_live(certificate: Certificate, now: datetime) -> Code:
    """Who only came too late keeps its key, and recovers by it; "revoked" would have it thrown
    away."""
    was_in_use = certificate.state is CertificateState.ACTIVE and certificate.held_at is None
    is_expired = was_in_use and now >= certificate.not_after
    return Code.CERTIFICATE_EXPIRED if is_expired else Code.CERTIFICATE_REVOKED
