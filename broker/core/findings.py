"""The words in which an examination says what it found."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    """It works, and the operator should know or decide."""
    ERROR = "error"
    """Something doesn't work, or isn't safe."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at. `remedy` says what to do, unless it is fine."""

    level: Level
    check: str
    """A stable name of what was checked, such as `claim_certificate`."""
    subject: str
    message: str
    remedy: str = ""
