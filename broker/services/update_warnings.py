"""Who reads the log is told in time what of the updates' metadata lapses."""

import asyncio
from datetime import datetime, timedelta
from typing import Final

from broker.core.findings import Finding
from broker.ports.clock import Clock
from broker.ports.updates import UpdateRepository
from broker.services.update_findings import lapse_finding

_AGAIN: Final = timedelta(days=1)


class UpdateWarnings:
    """Looks at what lapses; the service's chore."""

    def __init__(self, repository: UpdateRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._told: dict[str, datetime] = {}

    async def look(self) -> list[Finding]:
        """What is to be told now: each role once a day, for as long as it lapses.

        Raises:
            UpdateError: the repository can't be read.
        """
        now = self._clock.now()
        lapses = await asyncio.to_thread(self._repository.lapsing, now)
        due = [
            lapse
            for lapse in lapses
            if lapse.role not in self._told or now - self._told[lapse.role] >= _AGAIN
        ]
        roles = {lapse.role for lapse in lapses}
        self._told = {role: at for role, at in self._told.items() if role in roles}
        self._told |= {lapse.role: now for lapse in due}
        return [lapse_finding(lapse, now) for lapse in due]
