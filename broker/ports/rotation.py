"""What the registry keeps about rotation campaigns and operational authorities that follow one
another, as Protocols; `broker.ports` makes them a part of its transactions.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

from broker.core.ca_rollover import Rollover
from broker.core.campaign import Campaign, CampaignId, Rotation, RotationState
from broker.core.records import Certificate
from broker.protocol.names import DeviceId


class RotationReads(Protocol):
    """A consistent view of campaigns, their devices, and who has moved to which authority."""

    def campaign(self, campaign_id: CampaignId) -> Campaign | None: ...
    def campaigns(self, limit: int) -> list[Campaign]:
        """The newest ones, newest first."""

    def active_campaigns(self) -> list[Campaign]:
        """Those that give orders, or have some that may still be followed; oldest first."""

    def rotations(
        self, campaign_id: CampaignId, state: RotationState, after: str, limit: int
    ) -> list[Rotation]:
        """A campaign's devices in this state, ordered by id, from behind `after` on."""

    def last_orders(self, device_ids: Sequence[DeviceId]) -> dict[DeviceId, int]:
        """The highest version that each was ever ordered with; who never was is left out."""

    def ca_rollover(self) -> Rollover | None:
        """The newest replacement of the operational authority; none when there never was one."""

    def count_moved(self, old: int, new: int, now: datetime) -> tuple[int, int]:
        """How many devices have proven a certificate of `new`, and how many are left with the
        `old` authority's alone. Expired and revoked certificates don't count."""

    def left_behind(
        self, old: int, new: int, now: datetime, after: str, limit: int
    ) -> list[DeviceId]:
        """Those that are left, in order."""

    def not_renewed_since(self, moment: datetime, now: datetime, limit: int) -> list[DeviceId]:
        """Devices with a certificate that counts, and none that is valid from `moment` on, or from
        later, and proven; in order."""

    def count_not_renewed_since(self, moment: datetime, now: datetime) -> int:
        """How many those are."""

    def certificates_by(self, generation: int, now: datetime, limit: int) -> list[Certificate]:
        """Certificates of one authority that are neither revoked nor expired, oldest first."""

    def bundle_publications(self) -> dict[int, datetime]:
        """Since when each trust bundle is in use, by its version."""


class RotationWrites(Protocol):
    """What changes them, within a write transaction."""

    def save_ca_rollover(self, rollover: Rollover) -> None:
        """In the place of the one before."""

    def save_campaign(self, campaign: Campaign) -> None:
        """Adds it, or replaces what has its id."""

    def save_rotation(self, rotation: Rotation) -> None:
        """Adds it, or replaces the device's row in its campaign."""

    def save_bundle_publication(self, version: int, at: datetime) -> None:
        """Keeps since when a trust bundle is in use; the first time counts."""
