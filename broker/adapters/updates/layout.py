"""Where everything of the update repository lies in a Muster home."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class UpdateFolders:
    """The paths under a home's `updates/`."""

    path: Path

    @property
    def lock(self) -> Path:
        """Held by whoever changes anything here."""
        return self.path / "lock"

    @property
    def lifetimes(self) -> Path:
        return self.path / "lifetimes.json"

    @property
    def keys(self) -> Path:
        """The online keys: snapshot's, timestamp's and the director's."""
        return self.path / "keys"

    @property
    def repository(self) -> Path:
        """What a web server may serve."""
        return self.path / "repository"

    @property
    def metadata(self) -> Path:
        """A symbolic link to the state in force, switched whole; see `states`."""
        return self.repository / "metadata"

    @property
    def targets(self) -> Path:
        """The images' files under their consistent names (TUF 1.0, 7)."""
        return self.repository / "targets"

    @property
    def staging(self) -> Path:
        """What waits for signatures."""
        return self.path / "staging"

    @property
    def staged_metadata(self) -> Path:
        return self.staging / "metadata"

    @property
    def staged_targets(self) -> Path:
        return self.staging / "targets"


def consistent_name(path: str, sha256: str) -> str:
    """A target's file relative to the targets' folder: `a/b` becomes `a/<sha256>.b`."""
    parent, slash, name = path.rpartition("/")
    return f"{parent}{slash}{sha256}.{name}"
