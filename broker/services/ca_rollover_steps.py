"""Moving the operational authority's replacement on: what the service does about it.

Only what a broker is known to have read moves a phase on, so nothing is issued by an authority that
a broker doesn't know yet.
"""

from datetime import datetime
from typing import Final

from broker.core.ca_rollover import Phase, Rollover, Step, advance, in_force
from broker.core.campaign import CampaignId, CampaignState
from broker.core.lifecycle import MEMBERS
from broker.core.records import Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.ca_movement import begin_moving
from broker.services.campaigns import MAX_NAMED
from broker.services.crl import FleetCrl
from broker.services.revoking import FLEET_CRL_WANTED

_TELL_AGAIN_S: Final = 600.0
"""Whoever claimed just before the switch is told with the next campaign."""
_NEWS: Final = {
    Phase.SWITCHING: "is trusted by the fleet's broker, and is to issue",
    Phase.MOVING: "issues, and devices are told to move to it",
    Phase.DONE: "is the only one that counts",
}


class CaRolloverSteps:
    """Compares what is in force with what the registry asks for, and takes the next step."""

    def __init__(self, registry: Registry, crl: FleetCrl, clock: Clock) -> None:
        self._registry = registry
        self._crl = crl
        self._clock = clock
        self._told_at: float | None = None

    async def advance(self) -> Phase | None:
        """Takes the step that is due; the phase that it led to, none when there was none.

        Raises:
            RegistryError: calling again tries again.
        """
        known = await self._registry.read(lambda tx: tx.ca_rollover())
        if known is None or in_force(known) != self._crl.trusted_in_force:
            return None
        if known.phase is Phase.MOVING:
            await self._tell_again(known)
            return None
        if known.phase is Phase.DONE:
            return None
        self._told_at = self._clock.monotonic()
        return await self._registry.write(lambda tx: self._step(tx, known))

    def _step(self, tx: WriteTransaction, known: Rollover) -> Phase | None:
        if tx.ca_rollover() != known:
            return None
        now = self._clock.now()
        following = advance(known, Step.IN_FORCE)
        if following.phase is Phase.MOVING:
            following = begin_moving(tx, following, now)
        tx.save_ca_rollover(following)
        # The service looks at the row with the counter, and issues by it from then on.
        tx.raise_counter(FLEET_CRL_WANTED)
        detail = f"authority {following.new} {_NEWS[following.phase]}"
        tx.add_event(Event(now, EventKind.CA_ROLLOVER, code=following.phase, detail=detail))
        return following.phase

    async def _tell_again(self, known: Rollover) -> None:
        """Once in a while, and at the service's start: a campaign for members who are left."""
        now_s = self._clock.monotonic()
        if self._told_at is not None and now_s - self._told_at < _TELL_AGAIN_S:
            return
        self._told_at = now_s
        if await self._registry.read(lambda tx: _is_somebody_left(tx, known, self._clock.now())):
            await self._registry.write(lambda tx: self._tell(tx, known))

    def _tell(self, tx: WriteTransaction, known: Rollover) -> None:
        if tx.ca_rollover() == known:
            tx.save_ca_rollover(begin_moving(tx, known, self._clock.now()))


def _is_somebody_left(tx: ReadTransaction, rollover: Rollover, now: datetime) -> bool:
    """Whether a member waits for nothing: no campaign is about it any more."""
    if rollover.campaign is not None:
        campaign = tx.campaign(CampaignId(rollover.campaign))
        if campaign is not None and campaign.state is not CampaignState.DONE:
            return False
    for device_id in tx.left_behind(rollover.old, rollover.new, now, "", MAX_NAMED):
        device = tx.device(device_id)
        if device is not None and device.state in MEMBERS:
            return True
    return False
