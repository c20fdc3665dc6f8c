"""What is signed: each kind apart from every other, byte for byte as docs/protocol.md has it."""

from hypothesis import given
from hypothesis import strategies as st

from broker.protocol import statements, topics
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired


def test_the_bytes() -> None:
    assert statements.recovery_statement("q1", "ab") == b"muster-recover-v1\nq1\nab"
    confirmation = statements.confirmation_statement("q1", "lamp-1", "ab")
    assert confirmation == b"muster-confirm-v1\nq1\nlamp-1\nab"
    renewal = statements.renewal_statement("q1", "lamp-1", "ab", 7)
    assert renewal == b"muster-renew-v1\nq1\nlamp-1\nab\n7"
    assert statements.renewal_statement("q1", "lamp-1", "ab", None).endswith(b"\nab\n0")
    assert statements.trust_bundle_statement("{}") == b"muster-trust-bundle-v1\n{}"
    assert statements.assignment_statement("{}") == b"muster-assignment-v1\n{}"
    assert statements.report_statement("{}") == b"muster-report-v1\n{}"


@given(st.text(), st.text())
def test_no_text_makes_two_kinds_the_same(one: str, other: str) -> None:
    made = {
        statements.trust_bundle_statement(one),
        statements.assignment_statement(other),
        statements.report_statement(one),
        statements.recovery_statement(one, other),
        statements.renewal_statement(one, "lamp-1", other, None),
        statements.confirmation_statement(one, "lamp-1", other),
    }
    assert len(made) == 6


def test_where_it_is_retained() -> None:
    wanted = topics.desired_topic(DeviceId("lamp-1"), Desired.UPDATE)
    assert wanted == "muster/v1/device/lamp-1/desired/update"
    assert topics.metadata_topic("3.root.json") == "muster/v1/fleet/update/3.root.json"
