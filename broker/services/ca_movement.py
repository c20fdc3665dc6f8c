"""Telling devices to move to the authority that issues: a rotation campaign over those left."""

from dataclasses import replace
from datetime import datetime

from broker.core.ca_rollover import Rollover
from broker.core.campaign import Selection, SelectionKind
from broker.core.certificate_profile import BACKDATING
from broker.ports.registry import WriteTransaction
from broker.services.campaigns import MAX_NAMED, Wanted, begin


def begin_moving(tx: WriteTransaction, rollover: Rollover, now: datetime) -> Rollover:
    """The rollover with a campaign over the devices that are left; unchanged when none is.

    Raises:
        Problem: as `campaigns.begin`.
    """
    left = tx.left_behind(rollover.old, rollover.new, now, "", MAX_NAMED + 1)
    if not left:
        return rollover
    selection = Selection(SelectionKind.DEVICES, ids=tuple(left))
    if len(left) > MAX_NAMED:
        selection = Selection(SelectionKind.ALL)
    wanted = Wanted(
        selection,
        per_minute=rollover.per_minute,
        wave_size=rollover.wave_size,
        reason=f"authority {rollover.new} replaces {rollover.old}",
        # What is issued from now on is the new authority's, and begins this much earlier.
        fresh_from=now - BACKDATING,
    )
    return replace(rollover, campaign=begin(tx, wanted, now).id)
