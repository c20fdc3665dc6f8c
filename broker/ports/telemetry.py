"""What is counted for whoever watches."""

from typing import Protocol

from broker.protocol.zones import Zone


class Telemetry(Protocol):
    """Counts what the service does, for dashboards and alarms."""

    def count(self, zone: Zone, operation: str, outcome: str) -> None:
        """One more request of `operation` that ended as `outcome`: `accepted`, or its code."""


class AlarmTelemetry(Protocol):
    """Counts alarms, for those who are woken by them."""

    def alarm(self, alarm: str, claim_name: str) -> None:
        """One more alarm of this kind about a claim certificate."""


class SupportTelemetry(Protocol):
    """Shows how many devices have been left behind."""

    def unsupported(self, devices: int) -> None:
        """So many devices run something whose support has ended."""
