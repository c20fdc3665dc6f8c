"""Where, how much, how fast and how patiently an image is fetched."""

from dataclasses import dataclass
from typing import Final

from device_client.fetch.budget import DailyBudget

LONGEST_PAUSE_S: Final = 3600.0
"""Whatever a source asks for, it's tried again after that."""


@dataclass(frozen=True, kw_only=True)
class FetchLimits:
    """The defaults suit a device on a mobile network; tests use shorter ones."""

    hosts: tuple[str, ...] = ()
    """Who may be asked over HTTP, redirects too; see `hosts.check_host`."""

    timeout_s: float = 30.0
    """For each step: to connect with TLS, to answer a request, to send the next bytes."""
    slow_window_s: float = 60.0
    least_rate: float = 256.0
    """Bytes a second, on the average of each window; a slower source is left for the next one."""
    rate: float | None = None
    """Bytes a second at most, on the average; none for no limit."""
    budget: DailyBudget | None = None
    """How many bytes a day; none for no limit."""
    fruitless: int = 4
    """How many times in a row all sources may fail without one new byte until it's given up."""
    restarts: int = 3
    """How many times in one fetch a source may begin from the first byte again."""
    redirects: int = 5
    backoff_base_s: float = 2.0
    backoff_cap_s: float = 300.0
    blocks_at_once: int = 3
    """Blocks that are asked for before the first of them has come."""
