"""What `muster doctor` says about an authority that is being replaced."""

from datetime import timedelta
from typing import Final

from broker.core.ca_rollover import Phase, is_under_way
from broker.core.findings import Finding, Level
from broker.ports.clock import Clock
from broker.ports.registry import Registry

PATIENCE: Final = timedelta(minutes=1)
"""The service takes its steps within a second, as long as it and the broker run."""


async def examine_ca_rollover(registry: Registry, clock: Clock) -> list[Finding]:
    """A rollover that is under way, and one that waits for the service."""
    rollover = await registry.read(lambda tx: tx.ca_rollover())
    if rollover is None or not is_under_way(rollover):
        return []
    subject = f"operational authority {rollover.new}"
    if rollover.phase is Phase.MOVING:
        message = f"It replaces authority {rollover.old}; both are trusted until it's finished."
        remedy = "See 'muster ca rollover status' for who is left."
        return [Finding(Level.OK, "ca_rollover", subject, message, remedy)]
    if clock.now() - rollover.started_at < PATIENCE:
        return []
    message = f"Its rollover is {rollover.phase}, and waits for the service and the fleet's broker."
    remedy = "See that both run; it goes on by itself then."
    return [Finding(Level.WARNING, "ca_rollover", subject, message, remedy)]
