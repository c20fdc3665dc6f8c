"""How long, and how often, a device that was put out is thrown off again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.lifecycle import DeviceInput
from broker.core.lock_out import EVERY_S, WATCH_S, is_due, is_over

FOR_GOOD = [DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE]
STALE_CONNECT_S = 95.0


def test_it_is_watched_for_longer_than_a_broker_waits_for_connect() -> None:
    assert not is_over(STALE_CONNECT_S)
    assert is_over(WATCH_S)


@pytest.mark.parametrize("act", DeviceInput)
@pytest.mark.parametrize(
    ("rested_s", "expected"), [(0.0, False), (EVERY_S - 0.01, False), (EVERY_S, True), (50, True)]
)
def test_who_has_no_live_certificate_is_thrown_off_again_and_again(
    act: DeviceInput, rested_s: float, expected: bool
) -> None:
    assert is_due(act, 10.0, rested_s, has_live_certificate=False) is expected


@pytest.mark.parametrize("act", DeviceInput)
@given(watched_s=st.floats(0, WATCH_S, exclude_max=True), rested_s=st.floats(0, 1000))
def test_who_has_a_live_certificate_isn_t_disturbed_meanwhile(
    act: DeviceInput, watched_s: float, rested_s: float
) -> None:
    assert not is_due(act, watched_s, rested_s, has_live_certificate=True)


@pytest.mark.parametrize("act", FOR_GOOD)
@pytest.mark.parametrize("has_live_certificate", [True, False])
def test_at_the_end_what_may_have_slipped_in_is_thrown_off_once(
    act: DeviceInput, has_live_certificate: bool
) -> None:
    assert is_due(act, WATCH_S, 0.0, has_live_certificate)


def test_at_the_end_who_was_let_in_stays() -> None:
    assert not is_due(DeviceInput.RESUME, WATCH_S, 50.0, has_live_certificate=True)
    assert is_due(DeviceInput.RESUME, WATCH_S, 0.0, has_live_certificate=False)
