"""The phases of an authority's replacement: what each trusts, and what may follow."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from broker.core.ca_rollover import (
    InForce,
    Phase,
    Rollover,
    RolloverError,
    Step,
    advance,
    begin,
    in_force,
    is_under_way,
)

NOW = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)
BEGUN = begin(None, NOW)


def after(*steps: Step) -> Rollover:
    """What follows from a start by these steps."""
    rollover = BEGUN
    for step in steps:
        rollover = advance(rollover, step)
    return rollover


SWITCHING = after(Step.IN_FORCE)
MOVING = after(Step.IN_FORCE, Step.IN_FORCE)
LEAVING = after(Step.IN_FORCE, Step.IN_FORCE, Step.FINISH)
DONE = after(Step.IN_FORCE, Step.IN_FORCE, Step.FINISH, Step.IN_FORCE)
BOTH = frozenset({1, 2})


def test_without_a_rollover_the_first_authority_counts() -> None:
    assert in_force(None) == InForce(1, frozenset({1}))
    assert not is_under_way(None)


@pytest.mark.parametrize(
    ("rollover", "issuing", "trusted"),
    [
        (BEGUN, 1, BOTH),
        (SWITCHING, 2, BOTH),
        (MOVING, 2, BOTH),
        (LEAVING, 2, {2}),
        (DONE, 2, {2}),
    ],
)
def test_who_counts_follows_from_the_phase(
    rollover: Rollover, issuing: int, trusted: set[int]
) -> None:
    assert in_force(rollover) == InForce(issuing, frozenset(trusted))
    assert is_under_way(rollover) is (rollover is not DONE)


@pytest.mark.parametrize("rollover", [BEGUN, SWITCHING, MOVING, LEAVING, DONE])
@pytest.mark.parametrize("step", Step)
def test_what_issues_has_been_trusted_in_the_phase_before(rollover: Rollover, step: Step) -> None:
    try:
        following = advance(rollover, step)
    except RolloverError:
        return
    assert in_force(following).issuing in in_force(rollover).trusted
    assert in_force(following).issuing in in_force(following).trusted


def test_what_is_dropped_has_stopped_issuing_in_the_phase_before() -> None:
    for rollover in (BEGUN, SWITCHING, MOVING, LEAVING, DONE):
        for step in Step:
            try:
                following = advance(rollover, step)
            except RolloverError:
                continue
            dropped = in_force(rollover).trusted - in_force(following).trusted
            assert in_force(rollover).issuing not in dropped


def test_a_cancelled_introduction_has_nobody_to_move_back() -> None:
    back = advance(BEGUN, Step.CANCEL)
    assert (back.phase, back.old, back.new, back.is_return) == (Phase.LEAVING, 2, 1, True)
    assert in_force(back) == InForce(1, frozenset({1}))


@pytest.mark.parametrize("rollover", [SWITCHING, MOVING])
def test_a_cancelled_move_goes_the_other_way_with_both_trusted(rollover: Rollover) -> None:
    back = advance(replace(rollover, campaign=7), Step.CANCEL)
    assert (back.phase, back.old, back.new, back.is_return) == (Phase.SWITCHING, 2, 1, True)
    assert back.campaign is None
    assert in_force(back) == InForce(1, BOTH)
    with pytest.raises(RolloverError):
        advance(back, Step.CANCEL)


@pytest.mark.parametrize(
    ("rollover", "step"),
    [
        (BEGUN, Step.FINISH),
        (SWITCHING, Step.FINISH),
        (LEAVING, Step.CANCEL),
        (LEAVING, Step.FINISH),
        (DONE, Step.CANCEL),
        (DONE, Step.IN_FORCE),
        (MOVING, Step.IN_FORCE),
    ],
)
def test_what_is_not_in_the_table_can_not_happen(rollover: Rollover, step: Step) -> None:
    with pytest.raises(RolloverError):
        advance(rollover, step)


def test_a_number_is_never_used_twice() -> None:
    with pytest.raises(RolloverError):
        begin(MOVING, NOW)
    second = begin(DONE, NOW)
    assert (second.old, second.new) == (2, 3)
    returned = advance(advance(BEGUN, Step.CANCEL), Step.IN_FORCE)
    assert returned.phase is Phase.DONE
    third = begin(returned, NOW)
    assert (third.old, third.new) == (1, 3)
