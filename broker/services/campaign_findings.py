"""What doctor says of rotation campaigns: who is stuck, and who only waits."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from broker.core.campaign import Campaign, CampaignState
from broker.core.campaign_pace import orders_due
from broker.core.findings import Finding, Level
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry
from broker.services.campaigns import is_held

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

    now = clock.now()

    def work(view: ReadTransaction) -> list[Finding]:
        return [each for one in view.campaigns(_LOOKED_AT) for each in _examine(view, one, now)]

    return await registry.read(work)


def _examine(view: ReadTransaction, campaign: Campaign, now: datetime) -> Iterator[Finding]:
    waits_for_turns = campaign.waiting > 0
    if campaign.state is CampaignState.RUNNING and waits_for_turns and is_held(view, campaign):
        waits_for_turns = False
        if now - campaign.created_at > AWAY:
            yield _waits_for_operator(campaign)
    if campaign.state is CampaignState.PAUSED and campaign.waiting:
        yield _found(
            campaign,
            f"It is paused, and {campaign.waiting:,} devices wait for their order.",
            f"'muster rotate resume {campaign.id}', or 'muster rotate cancel {campaign.id}'.",
        )
    may_order = waits_for_turns or not campaign.is_listed
    if may_order and _gives_no_orders(campaign, now):
        yield _found(
            campaign,
            f"{campaign.waiting:,} devices wait, and no order was given since "
            f"{campaign.paced_to:%Y-%m-%d %H:%M}Z.",
            "See that the service runs; its log says 'chore_failed' if it can't.",
        )
    if campaign.ordered and not waits_for_turns and now - campaign.created_at > AWAY:
        yield _found(
            campaign,
            f"{campaign.ordered:,} devices have an order that they haven't followed for long.",
            f"See 'muster rotate status {campaign.id} --open'; those that are switched off follow "
            f"when they come back. 'muster rotate cancel {campaign.id}' ends it without them.",
        )


def _gives_no_orders(campaign: Campaign, now: datetime) -> bool:
    is_late = now - campaign.paced_to > max(STILL, timedelta(minutes=2) / campaign.per_minute)
    return is_late and orders_due(campaign, now) > 0


def _waits_for_operator(campaign: Campaign) -> Finding:
    return _found(
        campaign,
        f"{campaign.waiting:,} devices wait that are suspended, or haven't proven a certificate.",
        "See 'muster devices list --state suspended'; resume or revoke them. 'muster rotate cancel "
        f"{campaign.id}' ends it without them.",
    )


def _found(campaign: Campaign, message: str, remedy: str) -> Finding:
    return Finding(Level.WARNING, "rotation", f"campaign {campaign.id}", message, remedy)
