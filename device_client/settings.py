"""How long the agent waits for what. All durations are in seconds."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The defaults suit a device on a mobile network; tests use shorter ones."""

    connect_s: float = 15.0
    """For each step of connecting, and for each acknowledgement of the broker."""
    keepalive_s: int = 60
    answers_s: tuple[float, ...] = (10.0, 20.0, 40.0)
    """How long to wait for the service's answer, once for each time that the request is sent."""
    backoff_base_s: float = 1.0
    backoff_cap_s: float = 60.0
    slow_base_s: float = 60.0
    """For what only an operator can put right."""
    slow_cap_s: float = 3600.0
    stable_s: float = 60.0
    """A connection that lasted so long begins the backoff anew when it ends."""


def default_state_directory() -> Path:
    """Where the agent keeps its state: the system's place for root, the user's otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/muster-device")
    return Path.home() / ".local" / "state" / "muster-device"
