"""Whether a member's renewal is granted.

The broker vouches for the name by which it let a connection in once. Which of the name's keys asks,
and whether that still counts, is told by the request's signature.
"""

from datetime import datetime
from typing import Final

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import MEMBERS, CertificateState, DeviceState
from broker.core.records import Certificate
from broker.core.successor import SUCCESSORS_A_DAY, Member, Succeed, decide_successor
from broker.protocol.codes import Code, Refused
from broker.protocol.names import Fingerprint

SUCCESSORS_IN_A_GRACE: Final = SUCCESSORS_A_DAY // 2
"""Of a day's, by any other key than the one in use: who copied an old one can't use up what the
device needs."""


def admitted(member: Member | None) -> Member:
    """The member, if it's in a state to renew.

    Args:
        member: the device that the broker vouches for; none when the registry doesn't know it.

    Raises:
        Refused: CERTIFICATE_UNKNOWN, CERTIFICATE_UNCONFIRMED or DEVICE_BLOCKED.
    """
    if member is None:
        raise Refused(Code.CERTIFICATE_UNKNOWN)
    if member.device.state is DeviceState.PENDING:
        raise Refused(Code.CERTIFICATE_UNCONFIRMED)
    if member.device.state not in MEMBERS:
        raise Refused(Code.DEVICE_BLOCKED)
    return member


def signers(member: Member, now: datetime) -> tuple[Certificate, ...]:
    """By whose keys the member's renewals may be signed, the newest first.

    The certificate in use is among them when it has expired, too: its device is to hear so.
    """
    return tuple(c for c in reversed(member.certificates) if _is_in_use(c) or c.is_live(now))


def signer(member: Member, key: Fingerprint, now: datetime) -> Certificate:
    """The live certificate by which the renewal is signed; of several with one key that in use.

    Args:
        member: who asks.
        key: whose signature was verified, for one of `signers`.
        now: the calendar time.

    Raises:
        Refused: RENEWAL_SIGNATURE_INVALID or CERTIFICATE_EXPIRED.
    """
    signed = [c for c in signers(member, now) if c.key_sha256 == key]
    if not signed:  # revoked, or at the end of its grace, since the signature was verified
        raise Refused(Code.RENEWAL_SIGNATURE_INVALID)
    live = [c for c in signed if c.is_live(now)]
    if not live:
        # Brokers look at dates in handshakes only: the connection may be older than the expiry.
        raise Refused(Code.CERTIFICATE_EXPIRED)
    return next((c for c in live if _is_in_use(c)), live[0])


def decide_renew(
    member: Member,
    signed_by: Certificate,
    csr: VerifiedCsr,
    key_certificate: Certificate | None,
    now: datetime,
) -> Succeed | Repeat:
    """What becomes of the renewal.

    Args:
        member: the device that the broker vouches for.
        signed_by: as `signer` found it at `now`.
        csr: for which key.
        key_certificate: the newest certificate that was ever issued for that key.
        now: the calendar time.

    Raises:
        Refused: as `decide_successor` says.
    """
    most = SUCCESSORS_A_DAY if _is_in_use(signed_by) else SUCCESSORS_IN_A_GRACE
    return decide_successor(member, csr, key_certificate, now, most)


def _is_in_use(certificate: Certificate) -> bool:
    return certificate.state is CertificateState.ACTIVE
