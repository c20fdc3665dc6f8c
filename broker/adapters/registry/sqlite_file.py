"""SQLite's file under a running service: that it is still the one that was opened.

SQLite goes on with a file that was removed, or that another one took the place of: what it commits
is gone at the next start, and devices would hold certificates that nobody knows of.
"""

from pathlib import Path

from sqlalchemy.engine import make_url

from broker.adapters.registry.errors import RegistryCode
from broker.ports.registry import RegistryError


def file_number(url: str) -> int | None:
    """Which file the registry is at this moment; none on PostgreSQL, and without a file."""
    where = make_url(url)
    if where.drivername != "sqlite":
        return None
    try:
        return Path(where.database or "").stat().st_ino
    except OSError:
        return None


class RegistryFile:
    """The file as it was first seen. Put back in its place, it is good again."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known = self._look()

    def check(self) -> None:
        """Returns when the file is where it was.

        Raises:
            RegistryError: `registry_replaced`, or `registry_unavailable` when there never was one.
        """
        found = self._look()
        if self._known is None:
            self._known = found
        if found is None and self._known is None:
            raise RegistryError(
                RegistryCode.UNAVAILABLE,
                f"There is no registry at {self._path}.",
                "Restore it from your backup, mount the disk that it lies on, or correct its URL.",
            )
        if found != self._known:
            raise self._replaced("was removed" if found is None else "was replaced by another")

    def _look(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _replaced(self, what: str) -> RegistryError:
        return RegistryError(
            RegistryCode.REPLACED,
            f"The registry's file {what} while it was in use, so nothing is committed any more: "
            f"{self._path}.",
            "Put the former file back, and the service goes on by itself. To use another one: stop "
            f"the service, remove {self._path.name}-wal and {self._path.name}-shm beside it, put "
            "the file in place, and start again.",
        )
