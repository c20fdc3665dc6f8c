"""Carrying out what was decided about a member's next certificate, inside a transaction."""

from dataclasses import replace
from datetime import datetime

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import (
    CertificateInput,
    CertificateState,
    DeviceInput,
    next_certificate_state,
    next_device_state,
)
from broker.core.records import Certificate, Device, Event, EventKind
from broker.core.successor import Member, Succeed
from broker.ports.registry import ReadTransaction, WriteTransaction
from broker.protocol.names import DeviceId
from broker.services.issuing import Asked, Issuing


def find_member(view: ReadTransaction, device_id: DeviceId, now: datetime) -> Member | None:
    """The device with its group, its certificates that aren't revoked, and its pace."""
    device = view.device(device_id)
    group = view.group(device.group) if device else None
    if device is None or group is None:
        return None
    held = view.certificates_of([device_id])
    return Member(
        device,
        group,
        tuple(c for c in held if c.state is not CertificateState.REVOKED),
        tuple(c.not_before for c in held if c.claim_name is None and now < c.not_after),
    )


def give_successor(
    tx: WriteTransaction,
    issuing: Issuing,
    decision: Succeed | Repeat,
    csr: VerifiedCsr,
    order: int | None,
    now: datetime,
) -> Certificate:
    """The certificate that the device gets: a new one, or what it was given before."""
    if isinstance(decision, Repeat):
        certificate = decision.certificate
        if order is not None and order > (certificate.rotation_order or 0):
            # What it asks for again also follows the order that has come meanwhile.
            certificate = replace(certificate, rotation_order=order)
        return issuing.prolong(tx, certificate, now)
    device, group = decision.member.device, decision.member.group
    tx.save_device(replace(device, state=next_device_state(device.state, DeviceInput.ISSUE)))
    for dropped in decision.dropped:
        supersede(tx, device, dropped, now, now)
    asked = Asked(device.id, csr, group.certificate_lifetime, order=order)
    return issuing.issue(tx, asked, now)


def supersede(
    tx: WriteTransaction, device: Device, old: Certificate, until: datetime, now: datetime
) -> None:
    """Another takes its place; it's revoked when its grace is over (`services/superseded.py`)."""
    state = next_certificate_state(old.state, CertificateInput.SUPERSEDE)
    tx.save_certificate(replace(old, state=state, grace_until=until))
    tx.add_event(
        Event(
            at=now,
            kind=EventKind.CERTIFICATE_SUPERSEDED,
            device_id=device.id,
            serial_number=device.serial,
            group=device.group,
            detail=f"certificate {old.serial}, good until {until:%Y-%m-%d %H:%M:%S} UTC",
        )
    )
