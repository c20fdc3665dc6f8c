"""The two zones, each a broker of its own."""

from enum import StrEnum


class Zone(StrEnum):
    """Where a connection lives: asking for membership, or being a member."""

    CLAIM = "claim"
    FLEET = "fleet"
