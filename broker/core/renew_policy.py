"""Whether a member's renewal is granted. The broker vouches for who asks."""

from datetime import datetime
from typing import Final

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import MEMBERS, CertificateState, DeviceState
from broker.core.records import Certificate
from broker.core.successor import SUCCESSORS_A_DAY, Member, Succeed, decide_successor
from broker.protocol.codes import Code, Refused

SUCCESSORS_IN_A_GRACE: Final = SUCCESSORS_A_DAY // 2
"""Of a day's, while an old key may ask, too: who copied that can't use up what the device needs
once its grace is over."""
_NEXT_SWEEP_S: Final = 60


def decide_renew(
    member: Member | None, csr: VerifiedCsr, key_certificate: Certificate | None, now: datetime
) -> Succeed | Repeat:
    """What becomes of the renewal.

    Args:
        member: the device that the broker vouches for; none when the registry doesn't know it.
        csr: for which key.
        key_certificate: the newest certificate that was ever issued for that key.
        now: the calendar time.

    Raises:
        Refused: CERTIFICATE_UNKNOWN, CERTIFICATE_UNCONFIRMED, DEVICE_BLOCKED, CERTIFICATE_EXPIRED,
            RATE_LIMITED while an old certificate waits for its revocation, or as `decide_successor`
            says.
    """
    if member is None:
        raise Refused(Code.CERTIFICATE_UNKNOWN)
    if member.device.state is DeviceState.PENDING:
        raise Refused(Code.CERTIFICATE_UNCONFIRMED)
    if member.device.state not in MEMBERS:
        raise Refused(Code.DEVICE_BLOCKED)
    if not any(each.is_live(now) for each in member.certificates):
        # Brokers look at dates in handshakes only: the connection may be older than the expiry.
        raise Refused(Code.CERTIFICATE_EXPIRED)
    most = SUCCESSORS_IN_A_GRACE if lingering(member, now) else SUCCESSORS_A_DAY
    decision = decide_successor(member, csr, key_certificate, now, most)
    if isinstance(decision, Succeed) and any(_has_outlived(c, now) for c in member.certificates):
        # Brokers vouch for the name, not for the certificate: this may be who copied the old key.
        raise Refused(
            Code.RATE_LIMITED,
            "The certificate before this one is about to be revoked; renew after that.",
            retry_after_s=_NEXT_SWEEP_S,
        )
    return decision


def lingering(member: Member, now: datetime) -> Certificate | None:
    """A superseded certificate in its grace, by which the renewal may have been asked for, too."""
    in_grace = [c for c in member.certificates if _is_old(c) and c.is_live(now)]
    return in_grace[-1] if in_grace else None


def _has_outlived(certificate: Certificate, now: datetime) -> bool:
    """Whether its grace is over, and the sweep that revokes it is still to come."""
    until = certificate.grace_until
    return _is_old(certificate) and until is not None and until <= now < certificate.not_after


def _is_old(certificate: Certificate) -> bool:
    was_proven = certificate.confirmed_at is not None
    return certificate.state is CertificateState.SUPERSEDED and was_proven
