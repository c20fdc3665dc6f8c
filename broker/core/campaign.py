"""A campaign: devices that are ordered to renew their certificates, at a pace and in waves.

What isn't in the table can't happen to it. The counts are kept with the rows that they count, in
the same transaction, so that a million devices needn't be counted to know how far it is.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NewType

from broker.core.lifecycle import TransitionError
from broker.protocol.names import CertificateSerial, DeviceId

CampaignId = NewType("CampaignId", int)


class CampaignState(StrEnum):
    """Where a campaign stands."""

    RUNNING = "running"
    PAUSED = "paused"
    """No device is ordered anew; those that were follow, and are counted."""
    CANCELLED = "cancelled"
    """Orders that weren't followed yet are taken back."""
    DONE = "done"


class CampaignInput(StrEnum):
    """What happens to a campaign."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    FINISH = "finish"
    """Nobody waits for an order, and nobody has one to follow."""


_S = CampaignState
_I = CampaignInput

CAMPAIGN_TRANSITIONS: Final[dict[tuple[CampaignState, CampaignInput], CampaignState]] = {
    (_S.RUNNING, _I.PAUSE): _S.PAUSED,
    (_S.RUNNING, _I.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _I.FINISH): _S.DONE,
    (_S.PAUSED, _I.RESUME): _S.RUNNING,
    (_S.PAUSED, _I.CANCEL): _S.CANCELLED,
}


def next_campaign_state(state: CampaignState, happens: CampaignInput) -> CampaignState:
    """The state that follows.

    Raises:
        TransitionError: the table has no such step.
    """
    try:
        return CAMPAIGN_TRANSITIONS[state, happens]
    except KeyError:
        raise TransitionError(f"a campaign that is {state} can't {happens}") from None


class SelectionKind(StrEnum):
    """By what devices are chosen."""

    DEVICES = "devices"
    GROUP = "group"
    ALL = "all"
    CLAIM = "claim"
    """By the claim certificate that let them in."""


@dataclass(frozen=True)
class Selection:
    """Which devices a campaign is about: `name` is the group's, or the claim certificate's."""

    kind: SelectionKind
    name: str | None = None
    ids: tuple[DeviceId, ...] = ()

    def __str__(self) -> str:
        if self.kind is SelectionKind.DEVICES:
            return "named devices"
        return "all devices" if self.name is None else f"{self.kind} {self.name}"


class RotationState(StrEnum):
    """Where one device of a campaign stands."""

    WAITING = "waiting"
    """For its turn; or until it is resumed, or has proven its certificate."""
    ORDERED = "ordered"
    DONE = "done"
    """It has proven a certificate that is new enough."""
    DROPPED = "dropped"
    """It was revoked or retired meanwhile, or never proved its certificate."""
    WITHDRAWN = "withdrawn"
    """Its order was taken back before it was followed."""


@dataclass(frozen=True)
class Rotation:
    """One device of a campaign, and what was asked of it."""

    campaign: CampaignId
    device_id: DeviceId
    state: RotationState = RotationState.WAITING
    wave: int | None = None
    version: int | None = None
    """Its order's."""
    newest_before: CertificateSerial | None = None
    """The newest certificate that had been issued to it when it was ordered."""
    ordered_at: datetime | None = None
    settled_at: datetime | None = None


@dataclass(frozen=True)
class Campaign:
    """A campaign, and how far it has come."""

    id: CampaignId
    selection: Selection
    per_minute: int
    """How many orders are given in a minute, at most."""
    wave_size: int | None
    """How many devices make up a wave; none when only the pace counts."""
    created_at: datetime
    fresh_from: datetime
    """A certificate that is valid from then on, or from later, needn't be renewed."""
    paced_to: datetime
    """Up to when the pace has been used up by orders that were given."""
    reason: str | None = None
    state: CampaignState = CampaignState.RUNNING
    ended_at: datetime | None = None
    listed_to: DeviceId | None = None
    """The last device of the selection that has its row."""
    is_listed: bool = False
    """Whether all of them have."""
    waiting: int = 0
    ordered: int = 0
    done: int = 0
    dropped: int = 0
    withdrawn: int = 0
    wave: int = 1
    wave_given: int = 0
    """How many orders were given in this wave."""
    wave_settled: int = 0
    """How many of them needn't be waited for any more."""
    wave_full_at: datetime | None = None
    """When the last order of this wave was given."""

    @property
    def total(self) -> int:
        """How many devices it is about, as far as they are listed."""
        return self.waiting + self.ordered + self.done + self.dropped + self.withdrawn

    @property
    def settled(self) -> int:
        """How many needn't be waited for any more."""
        return self.done + self.dropped + self.withdrawn

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to do, for anybody."""
        has_ended = self.state in (CampaignState.DONE, CampaignState.CANCELLED)
        return has_ended and self.ordered == 0

    @property
    def may_finish(self) -> bool:
        """Whether every device has had its turn and needn't be waited for."""
        is_running = self.state is CampaignState.RUNNING
        return is_running and self.is_listed and self.waiting == 0 and self.ordered == 0


_COUNTS: Final = {
    RotationState.WAITING: "waiting",
    RotationState.ORDERED: "ordered",
    RotationState.DONE: "done",
    RotationState.DROPPED: "dropped",
    RotationState.WITHDRAWN: "withdrawn",
}


def counted(campaign: Campaign, before: Rotation | None, after: Rotation) -> Campaign:
    """The campaign with one row counted as `after`, which was `before` (none: there was none)."""
    counts = {name: getattr(campaign, name) for name in _COUNTS.values()}
    if before is not None:
        counts[_COUNTS[before.state]] -= 1
    counts[_COUNTS[after.state]] += 1
    left_order = before is not None and before.state is RotationState.ORDERED
    in_wave = left_order and after.wave == campaign.wave
    return replace(campaign, **counts, wave_settled=campaign.wave_settled + int(in_wave))
