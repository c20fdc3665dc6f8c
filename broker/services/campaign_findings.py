"""What doctor says of rotation campaigns: who is stuck, and who only waits."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from broker.core.campaign import Campaign, CampaignState
from broker.core.campaign_pace import orders_due
from broker.ports import Clock, ReadTransaction, Registry
from broker.services.doctor import Finding, Level

STILL: Final = timedelta(minutes=2)
"""An order that is due for so long isn't given by anybody."""
AWAY: Final = timedelta(days=1)
"""After it, who was ordered and hasn't followed is worth a word."""
_LOOKED_AT: Final = 100


async def examine_campaigns(registry: Registry, clock: Clock) -> list[Finding]:
    """What is wrong with the newest campaigns; nothing where all goes on.

    Raises:
        RegistryError: the registry failed.
    """

    def work(view: ReadTransaction) -> list[Campaign]:
        return view.campaigns(_LOOKED_AT)

    now = clock.now()
    return [
        finding for campaign in await registry.read(work) for finding in _examine(campaign, now)
    ]


def _examine(campaign: Campaign, now: datetime) -> Iterator[Finding]:
    if campaign.state is CampaignState.PAUSED and campaign.waiting:
        yield _found(
            campaign,
            f"It is paused, and {campaign.waiting:,} devices wait for their order.",
            f"'muster rotate resume {campaign.id}', or 'muster rotate cancel {campaign.id}'.",
        )
    if _gives_no_orders(campaign, now):
        yield _found(
            campaign,
            f"{campaign.waiting:,} devices wait, and no order was given since "
            f"{campaign.paced_to:%Y-%m-%d %H:%M}Z.",
            "See that the service runs; its log says 'chore_failed' if it can't.",
        )
    if campaign.ordered and not campaign.waiting and now - campaign.created_at > AWAY:
        yield _found(
            campaign,
            f"{campaign.ordered:,} devices have an order that they haven't followed for long.",
            f"See 'muster rotate status {campaign.id} --open'; those that are switched off follow "
            f"when they come back. 'muster rotate cancel {campaign.id}' ends it without them.",
        )


def _gives_no_orders(campaign: Campaign, now: datetime) -> bool:
    is_late = now - campaign.paced_to > max(STILL, timedelta(minutes=2) / campaign.per_minute)
    may_order = campaign.waiting > 0 or not campaign.is_listed
    return is_late and may_order and orders_due(campaign, now) > 0


def _found(campaign: Campaign, message: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, "rotation", f"campaign {campaign.id}", message, remedy)
