"""When few claims are left of a certificate that is still good."""

from datetime import timedelta

import pytest

from broker.core.claim_alarm import is_nearly_used
from tests.support.records import NOW, a_claim_certificate


@pytest.mark.parametrize(("claims", "is_alarming"), [(79, False), (80, True), (100, True)])
def test_from_four_fifths_on(claims: int, is_alarming: bool) -> None:
    claim = a_claim_certificate(max_claims=100, claims=claims, not_after=NOW + timedelta(days=1))
    assert is_nearly_used(claim, NOW) is is_alarming


def test_one_that_is_good_no_more_alarms_nobody() -> None:
    used = {"max_claims": 100, "claims": 100}
    assert not is_nearly_used(a_claim_certificate(**used, not_after=NOW), NOW)
    revoked = a_claim_certificate(**used, not_after=NOW + timedelta(days=1), revoked_at=NOW)
    assert not is_nearly_used(revoked, NOW)
