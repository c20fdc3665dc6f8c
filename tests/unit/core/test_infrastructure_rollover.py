"""The steps by which the infrastructure authority is replaced: one after the other, none twice."""

from datetime import UTC, datetime

import pytest

from broker.core.ca_rollover import RolloverError
from broker.core.infrastructure_rollover import (
    ServerPhase,
    ServerRollover,
    begin_servers,
    cancel,
    finish,
    reach,
)
from broker.protocol.zones import Zone

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ORDER = [ServerPhase.INTRODUCED, ServerPhase.FLEET, ServerPhase.CLAIM, ServerPhase.DONE]


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


def in_phase(phase: ServerPhase) -> ServerRollover:
    rollover = begin_servers(None, NOW)
    for each in ORDER[1 : ORDER.index(phase) + 1]:
        rollover = reach(rollover, each)
    return rollover


@pytest.mark.parametrize("phase", [ServerPhase.FLEET, ServerPhase.CLAIM])
def test_brokers_come_back_before_anybody_forgets_the_new_one(phase: ServerPhase) -> None:
    back = cancel(in_phase(phase))
    assert back.phase is ServerPhase.RETURNING
    assert [back.issuing(zone) for zone in Zone] == [1, 1]
    assert back.trusted == (1, 2)
    assert cancel(back) == back, "again, it ends nothing"
    ended = finish(back)
    assert (ended.phase, ended.trusted) == (ServerPhase.CANCELLED, (1,))
    assert [ended.issuing(zone) for zone in Zone] == [1, 1]
    assert finish(ended) == ended


def test_before_a_broker_has_changed_it_is_over_at_once() -> None:
    ended = cancel(in_phase(ServerPhase.INTRODUCED))
    assert (ended.phase, ended.trusted) == (ServerPhase.CANCELLED, (1,))
    assert cancel(ended) == ended


def test_what_is_done_can_t_be_cancelled() -> None:
    with pytest.raises(RolloverError, match="it is done"):
        cancel(in_phase(ServerPhase.DONE))
    with pytest.raises(RolloverError, match="there is no rollover"):
        cancel(None)


def test_what_was_cancelled_is_no_step_s_beginning_and_its_number_isn_t_used_again() -> None:
    ended = cancel(in_phase(ServerPhase.INTRODUCED))
    for phase in ORDER:
        with pytest.raises(RolloverError, match="doesn't follow"):
            reach(ended, phase)
    following = begin_servers(ended, NOW)
    assert (following.old, following.new) == (1, 3)
    for phase in ORDER[1:]:
        following = reach(following, phase)
    assert following.trusted == (3,)


@pytest.mark.parametrize("phase", [ServerPhase.INTRODUCED, ServerPhase.FLEET])
def test_it_ends_only_where_it_may(phase: ServerPhase) -> None:
    with pytest.raises(RolloverError, match="doesn't follow"):
        finish(in_phase(phase))
    assert finish(in_phase(ServerPhase.CLAIM)).phase is ServerPhase.DONE
