"""The steps by which the infrastructure authority is replaced: one after the other, none twice."""

from datetime import UTC, datetime

import pytest

from broker.core.ca_rollover import RolloverError
from broker.core.infrastructure_rollover import ServerPhase, begin_servers, reach
from broker.protocol.zones import Zone

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDER = list(ServerPhase)


@pytest.mark.parametrize(
    ("phase", "fleet", "claim", "trusted"),
    [
        (ServerPhase.INTRODUCED, 1, 1, (1, 2)),
        (ServerPhase.FLEET, 2, 1, (1, 2)),
        (ServerPhase.CLAIM, 2, 2, (1, 2)),
        (ServerPhase.DONE, 2, 2, (2,)),
    ],
)
def test_the_claim_broker_changes_last_and_both_are_trusted_until_then(
    phase: ServerPhase, fleet: int, claim: int, trusted: tuple[int, ...]
) -> None:
    rollover = begin_servers(None, NOW)
    for each in ORDER[1 : ORDER.index(phase) + 1]:
        rollover = reach(rollover, each)
    assert rollover.issuing(Zone.FLEET) == fleet
    assert rollover.issuing(Zone.CLAIM) == claim
    assert rollover.trusted == trusted


@pytest.mark.parametrize("now", ORDER)
@pytest.mark.parametrize("wanted", ORDER)
def test_only_the_next_step_or_the_same_again_may_be_taken(
    now: ServerPhase, wanted: ServerPhase
) -> None:
    rollover = begin_servers(None, NOW)
    for each in ORDER[1 : ORDER.index(now) + 1]:
        rollover = reach(rollover, each)
    if ORDER.index(wanted) - ORDER.index(now) in (0, 1):
        assert reach(rollover, wanted).phase is wanted
    else:
        with pytest.raises(RolloverError, match="doesn't follow"):
            reach(rollover, wanted)


def test_another_begins_where_the_last_one_ended_and_not_before() -> None:
    rollover = begin_servers(None, NOW)
    with pytest.raises(RolloverError, match="under way"):
        begin_servers(rollover, NOW)
    for each in ORDER[1:]:
        rollover = reach(rollover, each)
    following = begin_servers(rollover, NOW)
    assert (following.old, following.new) == (2, 3)


def test_without_one_there_is_no_step() -> None:
    with pytest.raises(RolloverError, match="there is no rollover"):
        reach(None, ServerPhase.FLEET)
