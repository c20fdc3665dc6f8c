"""What sealing the audit log needs, as Protocols; `broker.ports` makes a part of it the registry's
transactions'.
"""

from collections.abc import Sequence
from typing import Protocol

from broker.core.audit_chain import Floor, Seal, Signed
from broker.core.records import Event


class AuditError(Exception):
    """The audit log can't be sealed, or isn't what was sealed. `remedy` says what to do."""

    def __init__(self, code: str, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


class AuditReads(Protocol):
    """A consistent view of the audit log and its seals."""

    def events_after(self, event_id: int, limit: int) -> list[Event]:
        """What comes behind that event, oldest first."""

    def audit_programs(self) -> list[str]:
        """What the database does by itself when the log is written; Muster has it do nothing."""

    def audit_floor(self) -> Signed | None:
        """What is signed about what was dropped; none when nothing was."""

    def audit_seals(self, after: int, limit: int) -> list[Signed]:
        """The seals with higher numbers, in their order."""

    def newest_audit_seal(self) -> Signed | None: ...


class AuditWrites(Protocol):
    """What changes them."""

    def save_audit_seal(self, seal: Seal, signed: Signed) -> None:
        """Adds it, or replaces the one of its number."""

    def drop_events(self, floor: Floor, signed: Signed) -> int:
        """Drops all events and seals up to the floor, which takes the former one's place; how many
        events that were."""


class AuditKey(Protocol):
    """Signs what is said about the audit log. Its methods may block."""

    def sign(self, said: Seal | Floor) -> Signed: ...
    def seal(self, signed: Signed) -> Seal:
        """What was signed.

        Raises:
            AuditError: it isn't a seal that this key signed.
        """

    def floor(self, signed: Signed) -> Floor:
        """As `seal`."""


class AuditHead(Protocol):
    """The newest seal, kept where who can write to the registry can't. Its methods may block."""

    def read(self) -> Sequence[Signed]:
        """It, or nothing when there is none."""

    def write(self, newest: Signed) -> None: ...
