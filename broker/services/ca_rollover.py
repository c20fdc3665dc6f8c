"""Replacing the operational authority: what the operator's commands change in the registry.

They change a row and steer no broker. The service (`ca_rollover_steps`) puts in force what the row
asks for, and moves it on from there; the commands and the service may each be down, or killed.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from broker.core.ca_rollover import (
    PER_MINUTE,
    Phase,
    Rollover,
    RolloverError,
    Step,
    advance,
    begin,
    is_under_way,
)
from broker.core.campaign import Campaign, CampaignId, CampaignInput, CampaignState
from broker.core.lifecycle import (
    CertificateInput,
    CertificateState,
    next_certificate_state,
)
from broker.core.records import Certificate, Event, EventKind, RevocationReason
from broker.ports.clock import Clock
from broker.ports.registry import EventFilter, ReadTransaction, Registry, WriteTransaction
from broker.protocol.names import DeviceId
from broker.services.ca_movement import begin_moving
from broker.services.campaigns import is_held, steer
from broker.services.problems import Problem, ProblemCode
from broker.services.revoking import FLEET_CRL_WANTED, lock_out_of

SHOWN_AT_MOST: Final = 1000
_ALL: Final = 10_000_000


@dataclass(frozen=True)
class Standing:
    """How far a rollover is."""

    rollover: Rollover | None
    moved: int = 0
    """Devices that have proven a certificate of the new authority."""
    left: int = 0
    """Devices that only the old one lets in."""
    left_names: tuple[DeviceId, ...] = ()
    """The first of them."""
    campaign: Campaign | None = None


@dataclass(frozen=True)
class Pace:
    """How fast devices are told to move."""

    per_minute: int = PER_MINUTE
    wave_size: int | None = None


def standing(tx: ReadTransaction, now: datetime) -> Standing:
    """How far it is, in one view."""
    rollover = tx.ca_rollover()
    if rollover is None:
        return Standing(None)
    moved, left = tx.count_moved(rollover.old, rollover.new, now)
    names = tx.left_behind(rollover.old, rollover.new, now, "", SHOWN_AT_MOST) if left else []
    return Standing(rollover, moved, left, tuple(names), _campaign(tx, rollover))


class CaRollovers:
    """The operator's acts; each is one transaction, and doing it again changes nothing."""

    def __init__(self, registry: Registry, clock: Clock) -> None:
        self._registry = registry
        self._clock = clock

    async def standing(self) -> Standing:
        """How far it is."""
        now = self._clock.now()
        return await self._registry.read(lambda tx: standing(tx, now))

    async def planned(self, pace: Pace) -> Rollover:
        """The rollover that `start` would begin, or has begun already.

        Raises:
            Problem: ROLLOVER_STATE when one was cancelled and isn't back yet.
        """
        now = self._clock.now()
        return await self._registry.read(lambda tx: _begun(tx, pace, now))

    async def start(self, planned: Rollover) -> Standing:
        """Begins what was planned, once the new authority's files are in the home.

        Raises:
            Problem: ROLLOVER_STATE when the registry has moved on since.
        """
        pace = Pace(planned.per_minute, planned.wave_size)

        def work(tx: WriteTransaction, now: datetime) -> None:
            begun = _begun(tx, pace, now)
            if (begun.old, begun.new) != (planned.old, planned.new):
                raise _meanwhile()
            if begun != tx.ca_rollover():
                _save(tx, begun, now, f"authority {begun.new} is to replace {begun.old}")

        return await self._act(work)

    async def finish(self, abandon: int, *, dry_run: bool = False) -> Standing:
        """Ends the trust in the old authority, and revokes what is left of its certificates.

        Args:
            abandon: how many devices may be left, and so locked out until they recover.
            dry_run: whether to decide only, and change nothing.

        Raises:
            Problem: ROLLOVER_STATE, or DEVICES_LEFT when there are more than that.
        """
        try:
            if dry_run:
                return await self._decided(lambda tx, now: _finishing(tx, abandon, now))
            return await self._act(lambda tx, now: _finish(tx, abandon, now))
        except _TooManyLeftError:
            left = (await self.standing()).left
            raise _devices_left(max(left, abandon + 1)) from None

    async def cancel(self, *, dry_run: bool = False) -> Standing:
        """Goes back: the authority that was there before issues again, and who has moved moves
        back. Nobody is locked out by it.

        Args:
            dry_run: whether to decide only, and change nothing.

        Raises:
            Problem: ROLLOVER_STATE.
        """
        if dry_run:
            return await self._decided(lambda tx, _: _returning(tx))
        return await self._act(_cancel)

    async def pause(self) -> Standing:
        """No device is told to move until `resume`; those that were told go on.

        Raises:
            Problem: ROLLOVER_STATE.
        """

        def work(tx: WriteTransaction, now: datetime) -> None:
            campaign = _campaign(tx, _moving(tx))
            if campaign is not None and campaign.state is CampaignState.RUNNING:
                steer(tx, campaign, CampaignInput.PAUSE, now)

        return await self._act(work)

    async def resume(self) -> Standing:
        """Goes on after a pause; and where all have been told, tells those anew that are left.

        Raises:
            Problem: ROLLOVER_STATE.
        """

        def work(tx: WriteTransaction, now: datetime) -> None:
            rollover = _moving(tx)
            campaign = _campaign(tx, rollover)
            if campaign is not None and campaign.state is CampaignState.PAUSED:
                steer(tx, campaign, CampaignInput.RESUME, now)
            elif campaign is None or (
                (campaign.waiting == 0 or is_held(tx, campaign))
                and not _goes_on_since(tx, campaign, now)
            ):
                _stop(tx, rollover, now)
                tx.save_ca_rollover(begin_moving(tx, rollover, now))

        return await self._act(work)

    async def _decided(self, decide: Callable[[ReadTransaction, datetime], object]) -> Standing:
        """How it stands, when nothing is against the act."""
        now = self._clock.now()
        await self._registry.read(lambda tx: decide(tx, now))
        return await self.standing()

    async def _act(self, work: Callable[[WriteTransaction, datetime], None]) -> Standing:
        """How it stands after the act: a large fleet isn't counted while others wait to write."""
        now = self._clock.now()
        await self._registry.write(lambda tx: work(tx, now))
        return await self.standing()


def _begun(tx: ReadTransaction, pace: Pace, now: datetime) -> Rollover:
    """The one that is under way when the start is repeated."""
    known = tx.ca_rollover()
    if known is not None and is_under_way(known):
        if known.is_return:
            raise _wrong_state("The last rollover was cancelled, and isn't back yet.")
        return known
    return replace(begin(known, now), per_minute=pace.per_minute, wave_size=pace.wave_size)


def _known(tx: ReadTransaction) -> Rollover:
    rollover = tx.ca_rollover()
    if rollover is None:
        raise _wrong_state("There is no rollover.")
    return rollover


def _moving(tx: ReadTransaction) -> Rollover:
    rollover = _known(tx)
    if rollover.phase is not Phase.MOVING:
        raise _wrong_state(f"No devices are being moved: the rollover is {rollover.phase}.")
    return rollover


def _campaign(tx: ReadTransaction, rollover: Rollover) -> Campaign | None:
    return None if rollover.campaign is None else tx.campaign(CampaignId(rollover.campaign))


def _goes_on_since(tx: ReadTransaction, campaign: Campaign, now: datetime) -> bool:
    """Whether this very act has had it begin, or go on: the work may be run twice."""
    resumed = tx.events(EventFilter(kind=EventKind.ROTATION_RESUMED, limit=1))
    return now in (campaign.created_at, *(each.at for each in resumed))


def _advance(rollover: Rollover, step: Step) -> Rollover:
    try:
        return advance(rollover, step)
    except RolloverError as error:
        raise _wrong_state(f"That doesn't go now: the rollover is {rollover.phase}.") from error


def _stop(tx: WriteTransaction, rollover: Rollover, now: datetime) -> None:
    campaign = _campaign(tx, rollover)
    if campaign is not None and campaign.state in (CampaignState.RUNNING, CampaignState.PAUSED):
        steer(tx, campaign, CampaignInput.CANCEL, now)


def _save(tx: WriteTransaction, rollover: Rollover, now: datetime, detail: str) -> None:
    tx.save_ca_rollover(rollover)
    tx.raise_counter(FLEET_CRL_WANTED)
    tx.add_event(Event(now, EventKind.CA_ROLLOVER, code=rollover.phase, detail=detail))


class _TooManyLeftError(Exception):
    """More than the operator gives up."""


def _devices_left(count: int) -> Problem:
    return Problem(
        ProblemCode.DEVICES_LEFT,
        f"{count:,} devices have only a certificate of the old authority and would be locked out.",
        "See them with 'muster ca rollover status --left', and wait until they have moved; or give "
        f"them up with --abandon {count}.",
    )


@dataclass(frozen=True)
class _Leaving:
    """The end of a rollover, as it was decided."""

    before: Rollover
    after: Rollover
    left: frozenset[DeviceId]
    """Who is given up by it."""


def _finishing(tx: ReadTransaction, abandon: int, now: datetime) -> _Leaving | None:
    """The decision; none when it was finished before."""
    rollover = _known(tx)
    if rollover.phase in (Phase.LEAVING, Phase.DONE):
        return None
    leaving = _advance(rollover, Step.FINISH)
    # No further than the decision needs.
    left = tx.left_behind(rollover.old, rollover.new, now, "", abandon + 1)
    if len(left) > abandon:
        raise _TooManyLeftError
    return _Leaving(rollover, leaving, frozenset(left))


def _finish(tx: WriteTransaction, abandon: int, now: datetime) -> None:
    decided = _finishing(tx, abandon, now)
    if decided is None:
        return
    rollover = decided.before
    _stop(tx, rollover, now)
    _revoke_rest(tx, rollover, decided.left, now)
    detail = (
        f"authority {rollover.old} is dropped for {rollover.new}, "
        f"{len(decided.left)} devices abandoned"
    )
    _save(tx, decided.after, now, detail)


def _returning(tx: ReadTransaction) -> tuple[Rollover, Rollover] | None:
    """The rollover, and what follows from its cancellation; none when it was cancelled before."""
    rollover = _known(tx)
    return None if rollover.is_return else (rollover, _advance(rollover, Step.CANCEL))


def _cancel(tx: WriteTransaction, now: datetime) -> None:
    decided = _returning(tx)
    if decided is None:
        return
    rollover, returned = decided
    _stop(tx, rollover, now)
    _save(tx, returned, now, f"cancelled: back to authority {returned.new}")


def _revoke_rest(
    tx: WriteTransaction, rollover: Rollover, left: frozenset[DeviceId], now: datetime
) -> None:
    """The registry says then what the broker will: what the old authority issued doesn't count."""
    wanted = tx.counter(FLEET_CRL_WANTED) + 1
    for each in tx.certificates_by(rollover.old, now, _ALL):
        ended = _ended(each, each.device_id in left, now)
        tx.save_certificate(ended)
        tx.save_lock_out(lock_out_of(each, "dropped", wanted, now))
        if ended.state is CertificateState.REVOKED:
            tx.add_event(_event(tx, ended, now))


def _event(tx: ReadTransaction, ended: Certificate, now: datetime) -> Event:
    device = tx.device(ended.device_id)
    return Event(
        at=now,
        kind=EventKind.CERTIFICATE_REVOKED,
        device_id=ended.device_id,
        serial_number=device.serial if device else None,
        claim_name=ended.claim_name,
        group=device.group if device else None,
        code=ended.revoked_for,
        detail=f"certificate {ended.serial}",
    )


def _ended(certificate: Certificate, is_abandoned: bool, now: datetime) -> Certificate:
    if certificate.state is CertificateState.ISSUED:
        # It can't be proven any more; what goes with that is the lapse's to do.
        return replace(certificate, confirm_by=now)
    reason = RevocationReason.ABANDONED if is_abandoned else RevocationReason.SUPERSEDED
    state = next_certificate_state(certificate.state, CertificateInput.REVOKE)
    return replace(certificate, state=state, revoked_at=now, revoked_for=reason, held_at=None)


def _wrong_state(message: str) -> Problem:
    return Problem(
        ProblemCode.ROLLOVER_STATE, message, "See 'muster ca rollover status' for what comes next."
    )


def _meanwhile() -> Problem:
    return Problem(
        ProblemCode.ROLLOVER_STATE,
        "Another command has changed the rollover meanwhile.",
        "See 'muster ca rollover status', and try again.",
    )
