"""What records say of themselves."""

from datetime import timedelta

import pytest

from broker.core.lifecycle import CertificateState
from tests.support.records import NOW, a_certificate


@pytest.mark.parametrize("state", CertificateState)
def test_a_certificate_is_live_unless_it_was_revoked(state: CertificateState) -> None:
    assert a_certificate(state=state).is_live(NOW) is (state is not CertificateState.REVOKED)


@pytest.mark.parametrize(
    ("left", "is_live"),
    [(timedelta(microseconds=1), True), (timedelta(0), False), (timedelta(seconds=-1), False)],
)
def test_a_certificate_is_live_until_it_expires(left: timedelta, is_live: bool) -> None:
    assert a_certificate(not_after=NOW + left).is_live(NOW) is is_live
