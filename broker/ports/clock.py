"""What time it is."""

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    """The time, as the services see it."""

    def now(self) -> datetime:
        """Calendar time, aware, in UTC."""

    def monotonic(self) -> float:
        """Seconds since some fixed moment; never goes back."""
