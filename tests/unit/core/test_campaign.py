"""A campaign's life and its counts."""

from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.campaign import (
    CAMPAIGN_TRANSITIONS,
    Campaign,
    CampaignId,
    CampaignInput,
    CampaignState,
    Rotation,
    RotationState,
    Selection,
    SelectionKind,
    counted,
    next_campaign_state,
)
from broker.core.lifecycle import TransitionError
from broker.protocol.names import DeviceId
from tests.support.records import NOW

CAMPAIGN = Campaign(CampaignId(1), Selection(SelectionKind.ALL), 60, 5, NOW, NOW, NOW)
ROW = Rotation(CAMPAIGN.id, DeviceId("lamp-1"))
ENDED = {CampaignState.CANCELLED, CampaignState.DONE}


@pytest.mark.parametrize(("state", "happens"), list(product(CampaignState, CampaignInput)))
def test_what_isn_t_in_the_table_can_t_happen(state: CampaignState, happens: CampaignInput) -> None:
    if (state, happens) in CAMPAIGN_TRANSITIONS:
        assert next_campaign_state(state, happens) is CAMPAIGN_TRANSITIONS[state, happens]
        return
    with pytest.raises(TransitionError):
        next_campaign_state(state, happens)


def test_what_has_ended_stays_so_and_what_hasn_t_can_be_cancelled() -> None:
    assert not any(state in ENDED for state, _ in CAMPAIGN_TRANSITIONS)
    for state in set(CampaignState) - ENDED:
        assert next_campaign_state(state, CampaignInput.CANCEL) is CampaignState.CANCELLED


@pytest.mark.parametrize(
    ("selection", "shown"),
    [
        (Selection(SelectionKind.ALL), "all devices"),
        (Selection(SelectionKind.DEVICES, ids=(DeviceId("a"),)), "named devices"),
        (Selection(SelectionKind.GROUP, "lamps"), "group lamps"),
        (Selection(SelectionKind.CLAIM, "batch-7"), "claim batch-7"),
    ],
)
def test_a_selection_says_what_it_is(selection: Selection, shown: str) -> None:
    assert str(selection) == shown


@given(st.lists(st.lists(st.sampled_from(RotationState), min_size=1, max_size=4), max_size=8))
def test_every_row_is_counted_once_wherever_it_goes(lives: list[list[RotationState]]) -> None:
    campaign = CAMPAIGN
    for states in lives:
        before = None
        for state in states:
            after = replace(ROW, state=state)
            campaign = counted(campaign, before, after)
            before = after
    ends = [states[-1] for states in lives]
    assert campaign.total == len(lives)
    assert (campaign.waiting, campaign.ordered, campaign.done) == (
        ends.count(RotationState.WAITING),
        ends.count(RotationState.ORDERED),
        ends.count(RotationState.DONE),
    )
    assert campaign.settled == campaign.total - campaign.waiting - campaign.ordered


def test_a_wave_counts_its_own_orders_only() -> None:
    ordered = replace(ROW, state=RotationState.ORDERED, wave=1)
    done = replace(ordered, state=RotationState.DONE)
    campaign = counted(CAMPAIGN, None, ordered)
    assert counted(campaign, ordered, done).wave_settled == 1
    assert counted(replace(campaign, wave=2), ordered, done).wave_settled == 0
    # Who renewed before its turn was never in a wave.
    assert counted(campaign, ROW, replace(ROW, state=RotationState.DONE)).wave_settled == 0


def test_it_may_finish_when_nobody_is_waited_for() -> None:
    listed = replace(CAMPAIGN, is_listed=True)
    assert listed.may_finish
    assert not CAMPAIGN.may_finish
    assert not replace(listed, waiting=1).may_finish
    assert not replace(listed, ordered=1).may_finish
    assert not replace(listed, state=CampaignState.PAUSED).may_finish


def test_it_is_over_when_it_ended_and_no_order_is_left() -> None:
    cancelled = replace(CAMPAIGN, state=CampaignState.CANCELLED, ordered=1)
    assert not cancelled.is_over
    assert replace(cancelled, ordered=0).is_over
    assert not CAMPAIGN.is_over
