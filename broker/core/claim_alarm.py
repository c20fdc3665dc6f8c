"""When the use of a claim certificate is reason for alarm: it may have leaked."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from broker.core.records import ClaimCertificate

NEARLY_USED: Final = 0.8
"""The share of its claims at which an operator should look whether all of them were theirs."""
AGAIN_AFTER: Final = timedelta(hours=1)
"""How long an alarm of the same kind stays quiet."""


class ClaimAlarm(StrEnum):
    """What is unusual."""

    NEARLY_USED = "claims_nearly_used"
    RATE_LIMITED = "claims_rate_limited"


def is_nearly_used(claim: ClaimCertificate, now: datetime) -> bool:
    """Whether a claim certificate that is still good has few claims left."""
    is_good = claim.revoked_at is None and now < claim.not_after
    return is_good and claim.claims >= NEARLY_USED * claim.max_claims
