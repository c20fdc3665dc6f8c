"""The state tables: what is in them, what is not, and where they lead."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from itertools import product
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.lifecycle import (
    CERTIFICATE_TRANSITIONS,
    DEVICE_TRANSITIONS,
    CertificateInput,
    CertificateState,
    DeviceInput,
    DeviceState,
    TransitionError,
    next_certificate_state,
    next_device_state,
)

StateT = TypeVar("StateT", bound=StrEnum)
InputT = TypeVar("InputT", bound=StrEnum)

D = DeviceState
C = CertificateState


def reachable(table: Mapping[tuple[StateT, InputT], StateT], start: StateT) -> set[StateT]:
    """Every state to which some way leads from `start`, itself included."""
    found = {start}
    while True:
        further = {to for (state, _), to in table.items() if state in found} - found
        if not further:
            return found
        found |= further


def states_with(happens: DeviceInput) -> set[DeviceState]:
    """In which states it may happen."""
    return {state for state, possible in DEVICE_TRANSITIONS if possible is happens}


@pytest.mark.parametrize(("state", "happens"), list(product(DeviceState, DeviceInput)))
def test_each_pair_of_the_device_s_table_steps_or_raises(
    state: DeviceState, happens: DeviceInput
) -> None:
    if (state, happens) in DEVICE_TRANSITIONS:
        assert next_device_state(state, happens) is DEVICE_TRANSITIONS[state, happens]
        return
    with pytest.raises(TransitionError, match=f"{state} can't {happens}") as raised:
        next_device_state(state, happens)
    assert raised.value.code == "transition_invalid"


@pytest.mark.parametrize(("state", "happens"), list(product(CertificateState, CertificateInput)))
def test_each_pair_of_the_certificate_s_table_steps_or_raises(
    state: CertificateState, happens: CertificateInput
) -> None:
    if (state, happens) in CERTIFICATE_TRANSITIONS:
        follows = CERTIFICATE_TRANSITIONS[state, happens]
        assert next_certificate_state(state, happens) is follows
        return
    with pytest.raises(TransitionError, match=f"{state} can't {happens}"):
        next_certificate_state(state, happens)


def test_every_state_is_reached_from_the_first() -> None:
    assert reachable(DEVICE_TRANSITIONS, D.REGISTERED) == set(DeviceState)
    assert reachable(CERTIFICATE_TRANSITIONS, C.ISSUED) == set(CertificateState)


def test_the_final_states_are_final_and_no_others() -> None:
    assert set(DeviceState) - {state for state, _ in DEVICE_TRANSITIONS} == {D.RETIRED}
    assert set(CertificateState) - {state for state, _ in CERTIFICATE_TRANSITIONS} == {C.REVOKED}


def test_every_input_is_used() -> None:
    assert {happens for _, happens in DEVICE_TRANSITIONS} == set(DeviceInput)
    assert {happens for _, happens in CERTIFICATE_TRANSITIONS} == set(CertificateInput)


@given(st.lists(st.sampled_from(DeviceInput), max_size=30))
def test_nothing_comes_back_from_retired_and_only_a_reclaim_from_revoked(
    inputs: list[DeviceInput],
) -> None:
    state = D.REGISTERED
    for happens in inputs:
        before = state
        try:
            state = next_device_state(state, happens)
        except TransitionError:
            continue
        assert before is not D.RETIRED
        if before is D.REVOKED:
            assert happens in (DeviceInput.RECLAIM, DeviceInput.RETIRE)


def ways(states: Iterable[DeviceState], happens: DeviceInput) -> set[DeviceState]:
    """Where it leads from these states."""
    return {DEVICE_TRANSITIONS[state, happens] for state in states}


def test_each_input_means_one_thing() -> None:
    everywhere = set(DeviceState) - {D.RETIRED}
    assert states_with(DeviceInput.RETIRE) == everywhere
    assert states_with(DeviceInput.REVOKE) == everywhere - {D.REVOKED}
    assert ways(everywhere, DeviceInput.RETIRE) == {D.RETIRED}
    assert ways(everywhere - {D.REVOKED}, DeviceInput.REVOKE) == {D.REVOKED}
    assert states_with(DeviceInput.RECLAIM) == {D.REVOKED}
    assert states_with(DeviceInput.RESUME) == {D.SUSPENDED}
    assert states_with(DeviceInput.LAPSE) == {D.PENDING, D.ROTATING}


def test_a_device_that_lapses_is_where_it_was_before_the_issue() -> None:
    for before in (D.REGISTERED, D.ACTIVE):
        issued = next_device_state(before, DeviceInput.ISSUE)
        assert next_device_state(issued, DeviceInput.LAPSE) is before


def test_no_state_of_a_blocked_device_can_be_issued_to_or_confirmed() -> None:
    blocked = {D.SUSPENDED, D.REVOKED, D.RETIRED}
    assert not blocked & states_with(DeviceInput.ISSUE)
    assert not blocked & states_with(DeviceInput.CONFIRM)


def test_a_certificate_is_revoked_from_every_other_state() -> None:
    live = set(CertificateState) - {C.REVOKED}
    assert {CERTIFICATE_TRANSITIONS[state, CertificateInput.REVOKE] for state in live} == {
        C.REVOKED
    }
