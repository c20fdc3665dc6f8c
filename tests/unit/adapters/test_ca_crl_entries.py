"""Lines of a CRL are kept for the next, and follow what changes."""

from datetime import UTC, datetime, timedelta

from broker.adapters.ca.crl import Entries
from broker.core.records import RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.names import CertificateSerial

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)


def line(serial: str, reason: RevocationReason = RevocationReason.OPERATOR) -> Revocation:
    return Revocation(CertificateSerial(serial), NOW, reason)


def test_what_was_built_is_built_once_and_forgotten_when_it_leaves() -> None:
    entries = Entries()
    first = entries.of([line("a"), line("b")])
    assert [entry.serial_number for entry in first] == [10, 11]
    second = entries.of([line("b"), line("c")])
    assert [entry.serial_number for entry in second] == [11, 12]
    assert second[0] is first[1]
    assert entries.of([line("a")])[0] is not first[0]


def test_one_that_was_held_and_is_then_revoked_is_built_anew() -> None:
    entries = Entries()
    (held,) = entries.of([line("a", RevocationReason.SUSPENDED)])
    later = line("a")._replace(revoked_at=NOW + timedelta(seconds=5))
    (revoked,) = entries.of([later])
    assert revoked is not held
    assert revoked.revocation_date_utc == NOW + timedelta(seconds=5)
    assert len(held.extensions) == len(revoked.extensions) == 1
    assert held.extensions[0].value != revoked.extensions[0].value
