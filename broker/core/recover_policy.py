"""Whether a device whose certificate has expired gets a new one. Deny by default.

Two things are asked for: a claim certificate of the device's group, which only opens the door, and
the key of the last certificate that the device proved. Of that certificate nothing is believed: it
is the registry's own record, found by its fingerprint, that counts.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Final

from broker.core.claim_policy import Repeat, usable_claim
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import MEMBERS, CertificateState
from broker.core.records import Certificate, ClaimCertificate, RevocationReason
from broker.core.successor import Member, Succeed, decide_successor
from broker.protocol.codes import Code, Refused
from broker.protocol.names import GroupName

_BY_OPERATOR: Final = {RevocationReason.OPERATOR, RevocationReason.RETIRED}
_WAIT_AT_MOST: Final = timedelta(hours=1)


@dataclass(frozen=True)
class RecoverContext:
    """Everything the registry knows that bears on one recovery, read in one transaction."""

    claim: ClaimCertificate | None
    claim_group: GroupName | None
    """The group that lists the claim certificate."""
    last: Certificate | None
    """The registry's record of the certificate whose key has signed."""
    member: Member | None
    """Whose certificate that is."""
    key_certificate: Certificate | None
    """The newest certificate that was ever issued for the new key."""


def decide_recover(context: RecoverContext, csr: VerifiedCsr, now: datetime) -> Succeed | Repeat:
    """What becomes of the recovery, whose signature has been verified.

    Args:
        context: what the registry knows.
        csr: for which key.
        now: the calendar time.

    Raises:
        Refused: with the exact code of the first check that fails.
    """
    usable_claim(context.claim, now)
    if context.claim_group is None:
        raise Refused(Code.CLAIM_WITHOUT_GROUP)
    last, member = context.last, context.member
    if last is None or member is None:
        raise Refused(Code.RECOVERY_UNKNOWN)
    if member.device.group != context.claim_group:
        raise Refused(Code.RECOVERY_OTHER_GROUP)
    if member.device.state not in MEMBERS or last.revoked_for in _BY_OPERATOR:
        raise Refused(Code.RECOVERY_BLOCKED)
    if last.state is not CertificateState.ACTIVE and not _is_abandoned(last, member):
        # A device has one certificate in this state: the one that it proved last.
        raise Refused(Code.RECOVERY_SUPERSEDED)
    decision = decide_successor(member, csr, context.key_certificate, now)
    if isinstance(decision, Succeed):
        _check_time(last, member.group.recover_within, now)
    return decision


def _is_abandoned(last: Certificate, member: Member) -> bool:
    """Whether it was the last one, and ended with its authority: nobody suspects the device."""
    was_last = all(each.state is not CertificateState.ACTIVE for each in member.certificates)
    is_proven = last.confirmed_at is not None
    return last.revoked_for is RevocationReason.ABANDONED and is_proven and was_last


def _check_time(last: Certificate, within: timedelta, now: datetime) -> None:
    """Not for a repeated request: what was granted in time is given again."""
    approved = last.recovery_approved_until
    if approved is not None and now < approved:
        return
    end = last.not_after if last.revoked_at is None else min(last.not_after, last.revoked_at)
    if now < end:
        wait = min(end - now, _WAIT_AT_MOST)
        raise Refused(Code.RECOVERY_TOO_EARLY, retry_after_s=ceil(wait.total_seconds()))
    if not within or now - end > within:
        raise Refused(Code.RECOVERY_WINDOW_PASSED)
