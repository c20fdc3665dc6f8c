"""What doctor says of campaigns: each fault by itself, and nothing where all goes on."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.core.campaign import (
    Campaign,
    CampaignId,
    CampaignState,
    Rotation,
    Selection,
    SelectionKind,
)
from broker.protocol.names import DeviceId
from broker.services.campaign_findings import examine_campaigns
from tests.support.desk import Desk
from tests.support.operating import NOW

MINUTE = timedelta(minutes=1)
CAMPAIGN = Campaign(
    CampaignId(1), Selection(SelectionKind.ALL), 60, None, NOW, NOW, NOW, is_listed=True
)


async def told(desk: Desk, later: timedelta, **changes: Any) -> str:
    """Everything that is said, in one line."""
    await desk.write(("save_campaign", replace(CAMPAIGN, **changes)))
    desk.clock.at = NOW + later
    found = await examine_campaigns(desk.registry, desk.clock)
    assert all(finding.remedy and finding.subject == "campaign 1" for finding in found)
    return " ".join(finding.message for finding in found)


@pytest.mark.parametrize(
    ("later", "changes"),
    [
        (MINUTE, {"waiting": 5}),
        (timedelta(hours=2), {"done": 5, "state": CampaignState.DONE}),
        (timedelta(days=2), {"waiting": 5, "state": CampaignState.CANCELLED}),
        (timedelta(hours=2), {"ordered": 5}),
        (2 * MINUTE, {"waiting": 5, "per_minute": 1}),
        # A wave that waits for its devices.
        (
            timedelta(minutes=30),
            {"waiting": 5, "ordered": 5, "wave_size": 5, "wave_given": 5, "wave_full_at": NOW},
        ),
    ],
)
async def test_where_all_goes_on_nothing_is_said(
    desk: Desk, later: timedelta, changes: dict[str, Any]
) -> None:
    assert await told(desk, later, **changes) == ""


async def test_a_pause_that_was_forgotten(desk: Desk) -> None:
    said = await told(desk, MINUTE, waiting=1500, state=CampaignState.PAUSED)
    assert said == "It is paused, and 1,500 devices wait for their order."


async def test_a_service_that_gives_no_orders(desk: Desk) -> None:
    assert "no order was given since" in await told(desk, timedelta(minutes=10), waiting=5)
    assert "no order was given since" in await told(desk, timedelta(minutes=10), is_listed=False)


async def test_devices_that_don_t_come_back(desk: Desk) -> None:
    said = await told(desk, timedelta(days=2), ordered=3)
    assert said.startswith("3 devices have an order")


async def test_devices_that_an_operator_holds(desk: Desk) -> None:
    """The service isn't to blame for the orders that they aren't given."""
    await desk.enroll("A1")
    campaign = replace(CAMPAIGN, waiting=1, paced_to=NOW)
    await desk.write(
        ("save_campaign", campaign), ("save_rotation", Rotation(campaign.id, DeviceId("lamp-A1")))
    )
    assert await told(desk, timedelta(hours=2), waiting=1) == ""
    said = await told(desk, timedelta(days=2), waiting=1)
    assert said.startswith("1 devices wait that are suspended")
