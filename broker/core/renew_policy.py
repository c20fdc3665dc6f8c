"""Whether a member's renewal is granted. The broker vouches for who asks."""

from datetime import datetime
from typing import Final

from broker.core.claim_policy import Repeat
from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import DeviceState
from broker.core.records import Certificate
from broker.core.successor import Member, Succeed, decide_successor
from broker.protocol.codes import Code, Refused

MEMBERS: Final = {DeviceState.ACTIVE, DeviceState.ROTATING}
"""Who lives on a proven certificate."""


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
        Refused: CERTIFICATE_UNKNOWN, CERTIFICATE_UNCONFIRMED, DEVICE_BLOCKED, or as
            `decide_successor` says.
    """
    if member is None:
        raise Refused(Code.CERTIFICATE_UNKNOWN)
    if member.device.state is DeviceState.PENDING:
        raise Refused(Code.CERTIFICATE_UNCONFIRMED)
    if member.device.state not in MEMBERS:
        raise Refused(Code.DEVICE_BLOCKED)
    return decide_successor(member, csr, key_certificate, now)
