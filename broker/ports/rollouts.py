"""What the registry keeps about rollouts, as Protocols; `broker.ports` makes them a part of its
transactions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from broker.core.prepared import Candidate, Prepared
from broker.core.rollout import Progress, Rollout, Tally
from broker.core.update_records import DeviceUpdate, GivenAssignment, KnownReport, Part
from broker.protocol.names import DeviceId


@dataclass(frozen=True)
class Usable:
    """What is prepared is used when it was made like this, and not too long ago."""

    signed_as: str
    since: datetime


class RolloutReads(Protocol):
    """A consistent view of rollouts, assignments and reports."""

    def rollout(self, name: str) -> Rollout | None: ...
    def rollouts(self, limit: int) -> list[Rollout]:
        """The newest first."""

    def moving_rollouts(self) -> list[Rollout]:
        """Those for which there is something left to do, the oldest first."""

    def newest_rollout_number(self) -> int:
        """0 when there is none."""

    def tally(self, rollout: str) -> Tally: ...
    def failure_codes(self, rollout: str) -> dict[str, int]:
        """How many of its devices failed, were skipped or were called back, by code."""

    def part(self, rollout: str, device_id: DeviceId) -> Part | None: ...
    def parts_of(self, rollout: str, device_ids: Sequence[DeviceId]) -> list[Part]:
        """Those of these devices, in any order; to ask for one of them again costs nothing."""

    def parts(
        self, rollout: str, among: Sequence[Progress], after: DeviceId | None, limit: int
    ) -> list[Part]:
        """Those who stand at one of `among` (or anywhere, when it's empty), ordered by device."""

    def candidates(
        self, rollout: str, wave: int, usable: Usable, after: int, limit: int
    ) -> list[Candidate]:
        """The first of the queue, from the draw `after` on, for whom nothing usable is prepared.

        Args:
            wave: of their parts: 0, or that of the late joiners.
        """

    def reach(self, rollout: str, wave: int, limit: int) -> int | None:
        """The draw of the last of the first `limit` of the queue; none when it's empty."""

    def count_prepared(self, rollout: str) -> int:
        """How many are, usable or not; counts them one by one."""

    def has_prepared(self, rollout: str) -> bool:
        """Whether anything is, usable or not."""

    def count_silent(self, rollout: str, among: Sequence[Progress], since: datetime) -> int:
        """How many stand at one of `among` since before `since`."""

    def gone_parts(self, rollout: str, limit: int) -> list[Part]:
        """Those in flight whose device was revoked or has retired."""

    def given_assignment(self, device_id: DeviceId, sequence: int) -> GivenAssignment | None: ...
    def expiring_assignments(self, before: datetime, limit: int) -> list[GivenAssignment]:
        """Those that aren't settled and expire before that, the first to expire first."""

    def report(self, device_id: DeviceId, report_id: str) -> KnownReport | None: ...
    def final_report(self, device_id: DeviceId, sequence: int) -> KnownReport | None: ...
    def reports_of(self, device_id: DeviceId, limit: int) -> list[KnownReport]:
        """The newest first."""

    def device_update(self, device_id: DeviceId) -> DeviceUpdate | None: ...
    def device_updates(self, device_ids: Sequence[DeviceId]) -> list[DeviceUpdate]: ...
    def count_unsupported(self, now: datetime) -> int:
        """How many devices run something whose support has ended by `now`."""

    def joined_after(self, event_id: int, limit: int) -> list[tuple[int, DeviceId]]:
        """Who has become active since that event, with the event of each, oldest first."""

    def last_event_id(self) -> int:
        """0 when nothing has happened yet."""

    def retained_below(self, prefix: str) -> list[str]:
        """The topics that begin with `prefix` and are to retain something."""


class RolloutWrites(Protocol):
    """What changes them."""

    def save_rollout(self, rollout: Rollout) -> None:
        """Adds it, or replaces what has its name."""

    def save_part(self, part: Part) -> None:
        """Adds it, or replaces what the rollout has for its device; the tally follows."""

    def save_prepared(self, rollout: str, prepared: Sequence[Prepared]) -> None:
        """Adds them, or replaces what was prepared for their devices in this rollout."""

    def give_prepared(
        self, rollout: Rollout, wave: int, usable: Usable, limit: int, now: datetime
    ) -> int:
        """Gives the first of the queue what is prepared for them and usable; returns to how many.

        Their parts are assigned, what held for them is settled and another rollout's part in it
        superseded, the assignment holds, is retained, and is the device's last. All at once in the
        database, at a cost that doesn't pass through here.

        Args:
            wave: as in `candidates`.
        """

    def drop_prepared(self, rollout: str, limit: int) -> int:
        """Forgets what was prepared and not given; returns how many that were."""

    def save_assignment(self, assignment: GivenAssignment) -> None:
        """Adds it, or replaces what has its device and sequence."""

    def add_report(self, report: KnownReport) -> None: ...
    def save_device_update(self, update: DeviceUpdate) -> None:
        """Adds it, or replaces what is known of the device."""
