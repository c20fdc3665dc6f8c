"""The tables of rollouts and parts, and what no order of reports can bring about."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.rollout import (
    FINISHED,
    PROGRESS_TRANSITIONS,
    ROLLOUT_TRANSITIONS,
    Progress,
    RolloutError,
    RolloutInput,
    RolloutState,
    Step,
    next_progress,
    next_rollout_state,
)
from broker.protocol.updates import Phase

INPUTS = [*Phase, *Step]


@given(at=st.sampled_from(list(Progress)), happens=st.sampled_from(INPUTS))
def test_what_is_not_in_the_table_is_an_error(at: Progress, happens: Phase | Step) -> None:
    if (at, happens) in PROGRESS_TRANSITIONS:
        assert next_progress(at, happens) is PROGRESS_TRANSITIONS[at, happens]
    else:
        with pytest.raises(RolloutError):
            next_progress(at, happens)


@given(
    state=st.sampled_from(list(RolloutState)),
    happens=st.sampled_from(list(RolloutInput)),
)
def test_so_it_is_for_rollouts(state: RolloutState, happens: RolloutInput) -> None:
    if (state, happens) in ROLLOUT_TRANSITIONS:
        assert next_rollout_state(state, happens) is ROLLOUT_TRANSITIONS[state, happens]
    else:
        with pytest.raises(RolloutError):
            next_rollout_state(state, happens)


@given(st.lists(st.sampled_from(INPUTS), max_size=30))
def test_only_a_device_s_word_makes_an_installation(happens: list[Phase | Step]) -> None:
    at = Progress.QUEUED
    for each in happens:
        if (at, each) in PROGRESS_TRANSITIONS:
            before, at = at, next_progress(at, each)
            if at in FINISHED and at is not before:
                assert isinstance(each, Phase)
                assert each.is_final


def test_what_has_been_installed_is_never_taken_back() -> None:
    assert not [key for key in PROGRESS_TRANSITIONS if key[0] is Progress.INSTALLED]


def test_every_rollout_can_be_ended() -> None:
    for state in RolloutState:
        if state in (RolloutState.CANCELLED, RolloutState.DONE):
            continue
        assert (state, RolloutInput.CANCEL) in ROLLOUT_TRANSITIONS
