"""As `dying_service`, with the steps of a campaign's transactions among those to die at."""

import sys
from typing import Any, Final

from broker.services import campaign_runner
from broker.services.campaign_runner import CampaignRunner
from tests.fault import dying_service

_WHEN: Final = ("begun", "uncommitted", "committed")
ORDERING: Final = (
    *(f"listed-{when}" for when in _WHEN),
    *(f"ordered-{when}" for when in _WHEN),
    "fleet-publish-before",
    "fleet-publish-after",
)
"""From the campaign's start until its orders are on the broker."""
SETTLING: Final = tuple(f"settled-{when}" for when in _WHEN)
"""Counting those who have followed."""
WITHDRAWING: Final = tuple(f"withdrawn-{when}" for when in _WHEN)
"""Taking orders back."""

if __name__ == "__main__":
    works: dict[str, Any] = dying_service.WORKS
    works["listed"] = (campaign_runner, "_keep_listed")
    works["ordered"] = (campaign_runner, "_give_orders")
    works["settled"] = (CampaignRunner, "_settle")
    works["withdrawn"] = (CampaignRunner, "_withdraw")
    sys.exit(dying_service.run())
