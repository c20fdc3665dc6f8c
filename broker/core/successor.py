"""The certificate that follows the one in use, whichever way a member asks for it.

A key is certified once. What was superseded or revoked stays so: a request that was held back, or
sent again by somebody else, brings no key back to life.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import CertificateState
from broker.core.records import (
    Certificate,
    Device,
    EnrollmentGroup,
    RevocationReason,
    RotationKey,
)
from broker.protocol.codes import Code, Refused

SUCCESSORS_A_DAY: Final = 24
"""What one device is issued, and no more: each may end as a line of the CRL, and lines cost the
broker memory. A device that works needs one in weeks."""
_DAY: Final = timedelta(days=1)
_WAIT_AT_MOST: Final = timedelta(hours=1)


@dataclass(frozen=True)
class Member:
    """A device that lives on a certificate, and what it holds."""

    device: Device
    group: EnrollmentGroup
    certificates: tuple[Certificate, ...]
    """Those that aren't revoked, oldest first."""
    succeeded_at: tuple[datetime, ...] = ()
    """Since when each successor is valid that was ever issued to it and hasn't expired."""


@dataclass(frozen=True)
class Succeed:
    """A new certificate is to be issued."""

    member: Member
    dropped: tuple[Certificate, ...]
    """Unproven ones of other keys, which the device has given up; to be superseded at once."""


def decide_successor(
    member: Member,
    csr: VerifiedCsr,
    key_certificate: Certificate | None,
    now: datetime,
    most: int = SUCCESSORS_A_DAY,
) -> Succeed | Repeat:
    """What becomes of a member's request for its next certificate.

    Args:
        member: who asks, however that was proven.
        csr: for which key.
        key_certificate: the newest certificate that was ever issued for that key.
        now: the calendar time.
        most: how many it may have been issued within a day, with this one.

    Raises:
        Refused: KEY_NOT_ALLOWED, CSR_NAME_MISMATCH, KEY_IN_USE, KEY_NOT_NEW, KEY_RETIRED or
            RATE_LIMITED.
    """
    device, group = member.device, member.group
    if csr.key_type not in group.allowed_keys:
        allowed = ", ".join(sorted(group.allowed_keys))
        raise Refused(Code.KEY_NOT_ALLOWED, f"This group allows keys of type {allowed}.")
    if csr.names - {device.id, device.serial, ""}:
        raise Refused(Code.CSR_NAME_MISMATCH)
    if key_certificate is not None:
        if key_certificate.device_id != device.id:
            raise Refused(Code.KEY_IN_USE)
        if key_certificate.state is CertificateState.ISSUED and key_certificate.is_live(now):
            return Repeat(device, key_certificate)
        _check_known_key(key_certificate, group)
    _check_pace(member, now, most)
    dropped = tuple(c for c in member.certificates if c.state is CertificateState.ISSUED)
    return Succeed(member, dropped)


def _check_pace(member: Member, now: datetime, most: int) -> None:
    lately = sorted(at for at in member.succeeded_at if now - at < _DAY)
    if len(lately) >= most:
        wait = min(lately[-most] + _DAY - now, _WAIT_AT_MOST)
        detail = f"{len(lately)} certificates in a day; a device gets {most}."
        raise Refused(Code.RATE_LIMITED, detail, retry_after_s=ceil(wait.total_seconds()))


def _check_known_key(known: Certificate, group: EnrollmentGroup) -> None:
    """Whether a key of the device's own may have another certificate."""
    if known.state is CertificateState.ACTIVE:
        if group.rotation_key is not RotationKey.SAME_ALLOWED:
            raise Refused(Code.KEY_NOT_NEW)
        return
    # One that lapsed, or expired before it was proven, was never in use: the device was away.
    was_never_used = (
        known.state is CertificateState.ISSUED
        or known.revoked_for is RevocationReason.NEVER_CONFIRMED
    )
    if not was_never_used:
        raise Refused(Code.KEY_RETIRED)
