"""Devices that run something whose support has ended: counted, so that somebody is woken by it."""

from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.ports.telemetry import SupportTelemetry


class SupportWatch:
    """Tells the metrics how many they are; the service's chore."""

    def __init__(self, registry: Registry, clock: Clock, telemetry: SupportTelemetry) -> None:
        self._registry = registry
        self._clock = clock
        self._telemetry = telemetry

    async def look(self) -> int:
        """How many devices are past their `support_until`."""
        now = self._clock.now()
        devices = await self._registry.read(lambda view: view.count_unsupported(now))
        self._telemetry.unsupported(devices)
        return devices
