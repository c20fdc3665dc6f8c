"""What an operator sees of a device's certificates."""

from datetime import timedelta

from broker.core.lifecycle import CertificateState
from broker.entry.cli.devices import _standing
from broker.entry.cli.views import certificate_json
from tests.support.records import NOW, a_certificate


def test_until_when_a_superseded_one_lets_its_holder_in() -> None:
    until = NOW + timedelta(hours=1)
    old = a_certificate(state=CertificateState.SUPERSEDED, grace_until=until, generation=2)
    assert _standing(old, NOW) == f"superseded, good until {until:%Y-%m-%d %H:%M:%S}Z"
    shown = certificate_json(old, NOW)
    assert (shown["grace_until"], shown["authority"]) == (until, 2)


def test_a_suspension_is_said_before_anything_else() -> None:
    held = a_certificate(state=CertificateState.SUPERSEDED, held_at=NOW)
    assert _standing(held, NOW) == "held"
    assert _standing(a_certificate(state=CertificateState.ACTIVE), NOW) == "active"


def test_one_that_has_expired_says_so_beside_its_state() -> None:
    last = a_certificate(state=CertificateState.ACTIVE)
    assert _standing(last, last.not_after) == "active, expired"
    assert certificate_json(last, last.not_after)["expired"] is True
    assert certificate_json(last, NOW)["expired"] is False
