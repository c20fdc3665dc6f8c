"""What an operator's acts change: the device, its certificates, and the group's count."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.device_acts import ACTS, EVENTS, REVOKED_FOR, Change, decide_act
from broker.core.lifecycle import (
    DEVICE_TRANSITIONS,
    CertificateState,
    DeviceInput,
    DeviceState,
    TransitionError,
    next_device_state,
)
from broker.core.records import Certificate
from broker.protocol.names import CertificateSerial
from tests.support.records import NOW, a_certificate, a_device

REVOKED = a_certificate(serial=CertificateSerial("r1"), state=CertificateState.REVOKED)
ACTIVE = a_certificate(serial=CertificateSerial("a1"), state=CertificateState.ACTIVE)
ISSUED = a_certificate(serial=CertificateSerial("i1"))
UNCOUNTED = {DeviceState.REGISTERED, DeviceState.RETIRED}


def changed(state: DeviceState, act: DeviceInput, *certificates: Certificate) -> Change:
    """What the act changes; it changes something."""
    change = decide_act(a_device(state=state), certificates, act, NOW)
    assert change is not None
    return change


@pytest.mark.parametrize(("state", "act"), list(product(DeviceState, ACTS)))
def test_an_act_leads_where_the_lifecycle_says_or_can_t_be_done(
    state: DeviceState, act: DeviceInput
) -> None:
    device = a_device(state=state)
    already_there = state is ACTS[act] or (state, act) == (DeviceState.ROTATING, DeviceInput.RESUME)
    if already_there:
        assert decide_act(device, (ACTIVE,), act, NOW) is None
    elif (state, act) in DEVICE_TRANSITIONS:
        change = changed(state, act, ACTIVE)
        assert change.device == a_device(state=ACTS[act])
        assert change.concerns_broker is (act is not DeviceInput.RECLAIM)
    else:
        with pytest.raises(TransitionError):
            decide_act(device, (ACTIVE,), act, NOW)


def test_every_act_has_an_event_and_leads_where_the_tables_say() -> None:
    assert set(EVENTS) == set(ACTS)
    assert set(REVOKED_FOR) == {DeviceInput.REVOKE, DeviceInput.RETIRE}
    for (_, happens), follows in DEVICE_TRANSITIONS.items():
        if happens in ACTS:
            assert follows is ACTS[happens]


@pytest.mark.parametrize("act", REVOKED_FOR)
def test_who_is_put_out_for_good_loses_every_certificate(act: DeviceInput) -> None:
    change = changed(DeviceState.ROTATING, act, REVOKED, ACTIVE, ISSUED)
    assert change.revoked == (ACTIVE, ISSUED)
    assert change.held == ()


def test_who_is_suspended_keeps_certificates_that_are_held() -> None:
    change = changed(DeviceState.ROTATING, DeviceInput.SUSPEND, REVOKED, ACTIVE, ISSUED)
    assert change.revoked == ()
    assert [c.serial for c in change.held] == ["a1", "i1"]
    assert all(c.held_at == NOW and not c.is_live(NOW) for c in change.held)
    assert [c.state for c in change.held] == [ACTIVE.state, ISSUED.state]


def test_who_is_resumed_has_them_back_as_they_were() -> None:
    held = changed(DeviceState.ACTIVE, DeviceInput.SUSPEND, ACTIVE, ISSUED).held
    change = changed(DeviceState.SUSPENDED, DeviceInput.RESUME, *held, REVOKED)
    assert change.held == (ACTIVE, ISSUED)
    assert changed(DeviceState.SUSPENDED, DeviceInput.RESUME, ACTIVE).held == ()


@given(st.lists(st.sampled_from(DeviceInput), max_size=30))
def test_the_count_is_kept_whatever_happens_in_whatever_order(inputs: list[DeviceInput]) -> None:
    """A device takes one place in its group's quota or none, and gives back what it took."""
    state, counted = DeviceState.REGISTERED, 0
    for happens in inputs:
        before = state
        try:
            if happens in ACTS:
                change = decide_act(a_device(state=state), (), happens, NOW)
                counted += change.counted if change else 0
                state = change.device.state if change else state
            else:
                state = next_device_state(state, happens)
                # As the services do: a claim takes a place, and a lapse gives it back.
                counted += before is DeviceState.REGISTERED
                counted -= state is DeviceState.REGISTERED
        except TransitionError:
            continue
        assert counted == (state not in UNCOUNTED)
