"""How many devices of a campaign are ordered now: so many a minute, and wave after wave.

A wave is over when nine in ten of its devices needn't be waited for any more, or an hour after its
last order: devices that are switched off follow when they come back, and hold nobody up.
"""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from broker.core.campaign import Campaign, CampaignState

WAVE_SHARE: Final = 0.9
"""The part of a wave that must have followed before the next one begins."""
WAVE_TIMEOUT: Final = timedelta(hours=1)
"""After it the next wave begins all the same."""
CATCH_UP: Final = timedelta(seconds=10)
"""How much of the pace may be made up for at once: a service that was away for a day doesn't order
a day's devices when it comes back."""
RENEW_WITHIN: Final = timedelta(minutes=1)
MAX_PER_MINUTE: Final = 100_000


def orders_due(campaign: Campaign, now: datetime) -> int:
    """How many orders may be given now, whoever is there to take them."""
    if campaign.state is not CampaignState.RUNNING:
        return 0
    by_pace = (now - _paced_from(campaign, now)) // _interval(campaign)
    if campaign.wave_size is None:
        return by_pace
    if wave_is_over(campaign, now):
        return min(by_pace, campaign.wave_size)
    return min(by_pace, max(0, campaign.wave_size - campaign.wave_given))


def wave_is_over(campaign: Campaign, now: datetime) -> bool:
    """Whether the next wave may begin; never while orders of this one are still to be given."""
    if campaign.wave_full_at is None:
        return False
    enough = campaign.wave_settled >= WAVE_SHARE * campaign.wave_given
    return enough or now - campaign.wave_full_at >= WAVE_TIMEOUT


def was_set_back(campaign: Campaign, now: datetime) -> bool:
    """Whether the clock is behind what the campaign has seen of it."""
    return max(campaign.paced_to, campaign.wave_full_at or campaign.paced_to) > now


def given(campaign: Campaign, orders: int, now: datetime) -> Campaign:
    """The campaign after `orders`, at most what is due, were given `now`.

    If the clock was set back, the campaign's pace and wave go on from where the clock is.
    """
    if was_set_back(campaign, now):
        full_at = campaign.wave_full_at
        campaign = replace(
            campaign,
            paced_to=min(campaign.paced_to, now),
            wave_full_at=None if full_at is None else min(full_at, now),
        )
    if orders == 0:
        return campaign
    if campaign.wave_size is not None and wave_is_over(campaign, now):
        campaign = replace(
            campaign, wave=campaign.wave + 1, wave_given=0, wave_settled=0, wave_full_at=None
        )
    wave_given = campaign.wave_given + orders
    is_full = campaign.wave_size is not None and wave_given >= campaign.wave_size
    return replace(
        campaign,
        paced_to=_paced_from(campaign, now) + orders * _interval(campaign),
        wave_given=wave_given,
        wave_full_at=now if is_full else None,
    )


def renew_by(campaign: Campaign, now: datetime) -> datetime:
    """Until when an order that is given `now` is to be followed.

    Devices that are online spread their renewals over what is left; a campaign of a few needn't
    wait for that.
    """
    return now + min(RENEW_WITHIN, campaign.total * _interval(campaign))


def _interval(campaign: Campaign) -> timedelta:
    return timedelta(minutes=1) / campaign.per_minute


def _paced_from(campaign: Campaign, now: datetime) -> datetime:
    # At least one interval, else a slow pace would never come to its next order.
    earliest = now - max(CATCH_UP, _interval(campaign))
    return max(earliest, min(campaign.paced_to, now))
