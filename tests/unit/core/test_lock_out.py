"""When a device that was put out is thrown off again."""

import pytest

from broker.core.lifecycle import DeviceInput
from broker.core.lock_out import EVERY_S, WATCH_S, is_due, is_over

OUT = [DeviceInput.SUSPEND, DeviceInput.REVOKE, DeviceInput.RETIRE]


@pytest.mark.parametrize("act", [*OUT, DeviceInput.LAPSE])
def test_every_second_while_it_has_no_right_to_be_there(act: DeviceInput) -> None:
    assert is_due(act, 5.0, EVERY_S, has_live_certificate=False)
    assert not is_due(act, 5.0, EVERY_S / 2, has_live_certificate=False)


@pytest.mark.parametrize("act", [*OUT, DeviceInput.LAPSE])
def test_never_while_the_name_lives_on(act: DeviceInput) -> None:
    assert not is_due(act, WATCH_S - 1, WATCH_S, has_live_certificate=True)


@pytest.mark.parametrize("act", OUT)
def test_once_more_at_the_end_for_what_may_have_slipped_in(act: DeviceInput) -> None:
    assert is_over(WATCH_S)
    assert is_due(act, WATCH_S, 0.0, has_live_certificate=True)
    assert is_due(act, WATCH_S, 0.0, has_live_certificate=False)


def test_a_member_whose_newer_certificate_lapsed_is_left_alone() -> None:
    assert not is_due(DeviceInput.LAPSE, WATCH_S, WATCH_S, has_live_certificate=True)


def test_longer_than_mosquitto_keeps_a_silent_connection() -> None:
    assert WATCH_S > 95
