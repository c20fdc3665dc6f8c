"""An operator lets a device recover that the rules alone would refuse: once, and for a while.

The approval is about the certificate that the device proved last. As soon as it has proven another,
there is nothing left that it could be used for.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from broker.core.lifecycle import MEMBERS, CertificateState
from broker.core.records import Certificate, Device, Event, EventKind, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import Registry, WriteTransaction
from broker.protocol.names import DeviceId
from broker.services.problems import Problem, ProblemCode, unknown_device


@dataclass(frozen=True)
class Approval:
    """Which certificate's key may ask for a successor, and until when."""

    device_id: DeviceId
    certificate: Certificate
    until: datetime


async def approve_recovery(
    registry: Registry, clock: Clock, ids: Sequence[DeviceId], lasting: timedelta
) -> list[Approval]:
    """Approves all of them or none; a later approval takes the place of an earlier one.

    Args:
        ids: the devices' names.
        lasting: for how long from now.

    Raises:
        Problem: DEVICE_UNKNOWN, or VALUE_INVALID when a device isn't a member.
    """

    now = clock.now()

    def work(tx: WriteTransaction) -> list[Approval]:
        return [_approve(tx, each, now, now + lasting) for each in dict.fromkeys(ids)]

    return await registry.write(work)


def _approve(tx: WriteTransaction, device_id: DeviceId, now: datetime, until: datetime) -> Approval:
    device = tx.device(device_id)
    if device is None:
        raise unknown_device(device_id)
    proven = _proven(tx.certificates_of([device_id]))
    if device.state not in MEMBERS or not proven:
        raise _not_a_member(device)
    certificate = replace(proven[-1], recovery_approved_until=until)
    if certificate == proven[-1]:
        return Approval(device_id, certificate, until)
    tx.save_certificate(certificate)
    tx.add_event(
        Event(
            at=now,
            kind=EventKind.RECOVERY_APPROVED,
            device_id=device.id,
            serial_number=device.serial,
            group=device.group,
            detail=f"certificate {certificate.serial}, until {until:%Y-%m-%d %H:%M} UTC",
        )
    )
    return Approval(device_id, certificate, until)


def _proven(certificates: Sequence[Certificate]) -> list[Certificate]:
    """What its key may be asked for: the one in use, else the one that ended with its authority."""
    active = [c for c in certificates if c.state is CertificateState.ACTIVE]
    return active or [c for c in certificates if c.revoked_for is RevocationReason.ABANDONED]


def _not_a_member(device: Device) -> Problem:
    return Problem(
        ProblemCode.VALUE_INVALID,
        f"Device {device.id} is {device.state}, and has no proven certificate to recover from.",
        "Only a member recovers. 'muster devices resume' lets a suspended device in again; "
        "'reclaim' lets a revoked one claim anew.",
    )
