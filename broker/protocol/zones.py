"""The two zones, each a broker of its own."""

from enum import StrEnum

from broker.protocol.names import RESERVED_PREFIX


class Zone(StrEnum):
    """Where a connection lives: asking for membership, or being a member."""

    CLAIM = "claim"
    FLEET = "fleet"


def service_name(zone: Zone) -> str:
    """The service's certificate name on the zone's broker, and so its username."""
    return f"{RESERVED_PREFIX}service-{zone}"
