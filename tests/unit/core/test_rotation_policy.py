"""Whether a device needs an order, and when it has followed one."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.campaign import (
    Campaign,
    CampaignId,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
)
from broker.core.lifecycle import MEMBERS, CertificateState, DeviceState
from broker.core.records import Certificate
from broker.core.rotation_policy import HELD, after_order, at_its_turn, next_version
from broker.protocol.names import CertificateSerial
from tests.support.records import NOW, a_certificate, a_device

CAMPAIGN = Campaign(CampaignId(1), Selection(SelectionKind.ALL), 60, None, NOW, NOW, NOW)
LAMP = a_device(state=DeviceState.ACTIVE)
BEFORE = NOW - timedelta(days=10)
OLD = a_certificate(
    serial=CertificateSerial("a1"),
    state=CertificateState.ACTIVE,
    not_before=BEFORE,
    confirmed_at=BEFORE,
)
ROW = Rotation(
    CAMPAIGN.id, LAMP.id, RotationState.ORDERED, 1, 7, newest_before=OLD.serial, ordered_at=NOW
)


def newer(serial: str, *, proven: bool, state: CertificateState | None = None) -> Certificate:
    return replace(
        OLD,
        serial=CertificateSerial(serial),
        # Before the order by the clock: it doesn't count.
        not_before=NOW - timedelta(minutes=5),
        state=state or (CertificateState.ACTIVE if proven else CertificateState.ISSUED),
        confirmed_at=NOW if proven else None,
    )


@pytest.mark.parametrize("state", DeviceState)
def test_only_members_are_ordered_and_who_is_held_is_waited_for(state: DeviceState) -> None:
    device = replace(LAMP, state=state)
    at_turn = RotationState.ORDERED if state in MEMBERS else RotationState.DROPPED
    later = RotationState.WAITING if state in HELD else at_turn
    assert at_its_turn(CAMPAIGN, device, [OLD]) is later
    is_suspended = state is DeviceState.SUSPENDED
    still = RotationState.ORDERED if is_suspended else at_turn
    assert after_order(ROW, device, [OLD]) is still


def test_who_had_followed_when_it_was_suspended_has_followed() -> None:
    suspended = replace(LAMP, state=DeviceState.SUSPENDED)
    fresh = replace(newer("b2", proven=True), not_before=CAMPAIGN.fresh_from)
    assert at_its_turn(CAMPAIGN, suspended, [OLD, fresh]) is RotationState.DONE
    assert after_order(ROW, suspended, [OLD, fresh]) is RotationState.DONE


def test_who_isn_t_there_any_more_drops_out() -> None:
    assert at_its_turn(CAMPAIGN, None, []) is RotationState.DROPPED
    assert after_order(ROW, None, []) is RotationState.DROPPED


def test_who_has_renewed_since_needs_no_order() -> None:
    fresh = replace(newer("b2", proven=True), not_before=CAMPAIGN.fresh_from)
    assert at_its_turn(CAMPAIGN, LAMP, [OLD, fresh]) is RotationState.DONE
    unproven = replace(fresh, confirmed_at=None)
    assert at_its_turn(CAMPAIGN, LAMP, [OLD, unproven]) is RotationState.ORDERED
    backdated = newer("b2", proven=True)
    assert at_its_turn(CAMPAIGN, LAMP, [OLD, backdated]) is RotationState.ORDERED
    moved_on = replace(CAMPAIGN, fresh_from=BEFORE)
    assert at_its_turn(moved_on, LAMP, [OLD]) is RotationState.DONE


def test_followed_is_what_was_issued_afterwards_and_proven() -> None:
    assert after_order(ROW, LAMP, [OLD]) is RotationState.ORDERED
    unproven = newer("b2", proven=False)
    assert after_order(ROW, LAMP, [OLD, unproven]) is RotationState.ORDERED
    assert after_order(ROW, LAMP, [OLD, newer("b2", proven=True)]) is RotationState.DONE
    lapsed = newer("b2", proven=False, state=CertificateState.REVOKED)
    proven = newer("c3", proven=True)
    assert after_order(ROW, LAMP, [OLD, lapsed, proven]) is RotationState.DONE
    revoked = newer("b2", proven=True, state=CertificateState.REVOKED)
    assert after_order(ROW, LAMP, [OLD, revoked]) is RotationState.ORDERED


def test_what_was_on_its_way_counts_if_it_was_asked_for_again_with_the_order() -> None:
    pending = newer("b2", proven=True)
    row = replace(ROW, newest_before=pending.serial)
    assert after_order(row, LAMP, [OLD, pending]) is RotationState.ORDERED
    earlier = replace(pending, rotation_order=6)
    assert after_order(row, LAMP, [OLD, earlier]) is RotationState.ORDERED
    for order in (7, 8):
        followed = replace(pending, rotation_order=order)
        assert after_order(row, LAMP, [OLD, followed]) is RotationState.DONE
        unproven = replace(followed, confirmed_at=None)
        assert after_order(row, LAMP, [OLD, unproven]) is RotationState.ORDERED


def test_without_a_certificate_before_any_proven_one_counts() -> None:
    row = replace(ROW, newest_before=None)
    assert after_order(row, LAMP, [OLD]) is RotationState.DONE


@given(st.none() | st.integers(1, 2**62), st.floats(-1e9, 1e9))
def test_a_version_always_rises(last: int | None, by_seconds: float) -> None:
    now = NOW + timedelta(seconds=by_seconds)
    version = next_version(last, now)
    assert version > (last or 0)
    assert version >= int(now.timestamp())
