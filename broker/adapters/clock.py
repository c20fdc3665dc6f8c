"""The machine's clock."""

import time
from datetime import UTC, datetime


class SystemClock:
    """Meets `broker.ports.clock.Clock`."""

    def now(self) -> datetime:
        """Calendar time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since the machine started, or so."""
        return time.monotonic()
