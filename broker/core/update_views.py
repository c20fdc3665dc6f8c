"""What an operator is shown of the update repository."""

from dataclasses import dataclass
from datetime import datetime

from broker.protocol.updates import ImageFacts


@dataclass(frozen=True)
class SignatureNeed:
    """Whose signatures a role's metadata needs, by one of those who delegate to it."""

    delegator: str
    """Such as `root 1`: the role that names the keys, and its version."""
    threshold: int
    signed: tuple[str, ...]
    """Key ids."""
    unsigned: tuple[str, ...]

    @property
    def missing(self) -> int:
        return max(0, self.threshold - len(self.signed))


@dataclass(frozen=True)
class StagedRole:
    """Metadata that waits for signatures or for being published."""

    role: str
    version: int
    expires: datetime
    needs: tuple[SignatureNeed, ...]
    """Two for a root that follows another: the old keys' and its own. None when nobody delegates
    to it: then adding it was interrupted."""
    changes: tuple[str, ...]
    """What differs from what is published, a line each."""
    unchanged: tuple[str, ...] = ()
    """What is the same. Whoever signs reads it too: what is said to be published may be made up by
    somebody who broke into the server."""
    digest: str = ""
    """SHA-256 of the bytes that are signed: the same on every machine that shows the same."""

    @property
    def is_complete(self) -> bool:
        """Whether it could be published."""
        return bool(self.needs) and not any(need.missing for need in self.needs)


@dataclass(frozen=True)
class RoleView:
    """A role as it's published."""

    role: str
    version: int
    expires: datetime
    keyids: tuple[str, ...]
    threshold: int
    is_lapsing: bool
    """Somebody has to sign it anew soon, or should have."""
    is_expired: bool
    """Devices refuse every update for it."""


@dataclass(frozen=True)
class TargetView:
    """A published target; `support` is as `metadata_lifetime.support_state` says."""

    path: str
    sha256: str
    length: int
    facts: ImageFacts
    support: str


@dataclass(frozen=True)
class RepositoryView:
    """The whole repository."""

    roles: tuple[RoleView, ...]
    """The director too, which signs assignments and has no metadata of its own."""
    staged: tuple[StagedRole, ...]
    targets: tuple[TargetView, ...]
