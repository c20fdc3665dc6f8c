"""What an operator's act changes, in each state of a device."""

from dataclasses import replace
from itertools import product

import pytest

from broker.core.device_acts import ACTS, EVENTS, REVOKED_FOR, decide_act
from broker.core.lifecycle import (
    DEVICE_TRANSITIONS,
    CertificateState,
    DeviceInput,
    DeviceState,
    TransitionError,
)
from broker.core.records import Certificate
from broker.protocol.names import CertificateSerial
from tests.support.records import NOW, a_certificate, a_device

COUNTED = set(DeviceState) - {DeviceState.REGISTERED, DeviceState.RETIRED}
LIVE = tuple(
    a_certificate(serial=CertificateSerial(f"e{n}"), state=state)
    for n, state in enumerate(s for s in CertificateState if s is not CertificateState.REVOKED)
)
HELD = tuple(replace(c, held_at=NOW) for c in LIVE)


def test_every_act_has_an_event_of_its_own() -> None:
    assert set(EVENTS) == set(ACTS)
    assert len(set(EVENTS.values())) == len(ACTS)
    assert set(REVOKED_FOR) <= set(ACTS)


@pytest.mark.parametrize(("state", "act"), list(product(DeviceState, ACTS)))
def test_each_state_and_act(state: DeviceState, act: DeviceInput) -> None:
    device = a_device(state=state)
    is_there = state is ACTS[act] or (state, act) == (DeviceState.ROTATING, DeviceInput.RESUME)
    if is_there:
        assert decide_act(device, LIVE, act, NOW) is None
    elif (state, act) not in DEVICE_TRANSITIONS:
        with pytest.raises(TransitionError):
            decide_act(device, LIVE, act, NOW)
    else:
        change = decide_act(device, LIVE, act, NOW)
        assert change is not None
        assert change.device == replace(device, state=ACTS[act])
        assert change.counted == (ACTS[act] in COUNTED) - (state in COUNTED)


def changed(state: DeviceState, act: DeviceInput, certificates: tuple[Certificate, ...]) -> object:
    change = decide_act(a_device(state=state), certificates, act, NOW)
    assert change is not None
    return change.revoked, change.held, change.concerns_broker


def test_what_becomes_of_the_certificates() -> None:
    active, suspended = DeviceState.ACTIVE, DeviceState.SUSPENDED
    assert changed(active, DeviceInput.SUSPEND, LIVE) == ((), HELD, True)
    assert changed(suspended, DeviceInput.RESUME, HELD) == ((), LIVE, True)
    assert changed(active, DeviceInput.REVOKE, LIVE) == (LIVE, (), True)
    assert changed(suspended, DeviceInput.REVOKE, HELD) == (HELD, (), True)
    assert changed(active, DeviceInput.RETIRE, LIVE) == (LIVE, (), True)
    assert changed(DeviceState.REVOKED, DeviceInput.RECLAIM, ()) == ((), (), False)


def test_a_device_without_certificates_can_be_put_out_too() -> None:
    assert changed(DeviceState.REGISTERED, DeviceInput.REVOKE, ()) == ((), (), True)
