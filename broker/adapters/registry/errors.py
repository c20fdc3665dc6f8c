"""Database errors, translated into the port's: one stable code, and what an operator does next.

No text here comes from a connection URL, so no password can get into a log.
"""

import sqlite3
from enum import StrEnum

import psycopg
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from broker.ports.registry import RegistryConflict, RegistryError


class RegistryCode(StrEnum):
    """The codes of `RegistryError` that this adapter raises."""

    BUSY = "registry_busy"
    CLOSED = "registry_closed"
    CONFLICT = "registry_conflict"
    FAILED = "registry_failed"
    FULL = "registry_full"
    REPLACED = "registry_replaced"
    SCHEMA_NEWER = "schema_newer"
    SCHEMA_OLDER = "schema_older"
    UNAVAILABLE = "registry_unavailable"
    URL_INVALID = "registry_url_invalid"


DATABASE_ERRORS = (sqlite3.Error, psycopg.Error, SQLAlchemyError)

_SQLITE_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
# SQLite reports these when there is no room for its shared memory or journal files.
_SQLITE_FULL = (sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_WRITE)
_SQLITE_UNAVAILABLE = (
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
)
_PRIMARY = 0xFF
"""SQLite's extended codes hold their primary code in the lowest byte."""


def busy(message: str) -> RegistryError:
    """More waits than the registry takes."""
    return RegistryError(
        RegistryCode.BUSY,
        message,
        "Ask again in a moment; if it lasts, look for another command that holds the registry.",
    )


def closed() -> RegistryError:
    """The registry isn't running."""
    return RegistryError(
        RegistryCode.CLOSED, "The registry isn't open.", "Start the service again."
    )


def conflict(message: str) -> RegistryConflict:
    """A rule that the registry keeps forbids the change."""
    return RegistryConflict(
        RegistryCode.CONFLICT, message, "Change what collides, or remove it first, and try again."
    )


def unreadable(what: str, error: Exception) -> RegistryError:
    """A row holds what Muster never writes."""
    return RegistryError(
        RegistryCode.FAILED,
        f"{what} can't be read: {_first_line(error)}.",
        "Another program wrote to the registry, or a later Muster did: compare with a backup.",
    )


def translated(error: Exception) -> RegistryError:
    """The port's error for one of `DATABASE_ERRORS`."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        return _from_sqlite(cause)
    if isinstance(cause, psycopg.Error):
        return _from_postgresql(cause)
    return _failed(cause)


def is_lost(error: Exception) -> bool:
    """Whether the connection to the server broke: trying once more on a new one makes sense."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if not isinstance(cause, psycopg.OperationalError):
        return False
    state = cause.sqlstate
    # 57P0x: the server ends our connection or is starting up. Without a state, it never answered.
    return state is None or state.startswith(("08", "57P0"))


def _from_sqlite(error: sqlite3.Error) -> RegistryError:
    extended: int = getattr(error, "sqlite_errorcode", 0)
    primary = extended & _PRIMARY
    if primary == sqlite3.SQLITE_FULL or extended in _SQLITE_FULL:
        return _full(error)
    if primary in _SQLITE_BUSY:
        return busy("Another program held the registry's file for too long.")
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return conflict(f"The registry's rules forbid this change: {error}.")
    if primary in _SQLITE_UNAVAILABLE:
        return RegistryError(
            RegistryCode.UNAVAILABLE,
            f"The registry's file can't be used: {error}.",
            "Check that the file exists, belongs to the service's user and is on a healthy disk.",
        )
    return _failed(error)


def _from_postgresql(error: psycopg.Error) -> RegistryError:
    state = error.sqlstate or ""
    if state == "53100":
        return _full(error)
    if state in ("55P03", "40001", "40P01"):
        return busy("Another program held the registry's lock for too long.")
    if state.startswith("23"):
        return conflict(f"The registry's rules forbid this change: {_first_line(error)}.")
    if is_lost(error) or state.startswith(("28", "3D", "42501", "53", "57")):
        return RegistryError(
            RegistryCode.UNAVAILABLE,
            f"PostgreSQL can't be used: {_first_line(error)}.",
            "Check that the server runs and that the registry's URL names the right host, "
            "database, user and password.",
        )
    return _failed(error)


def _full(error: Exception) -> RegistryError:
    return RegistryError(
        RegistryCode.FULL,
        f"The registry has no room left: {_first_line(error)}.",
        "Make room on the registry's disk; the service goes on by itself.",
    )


def _failed(error: BaseException | None) -> RegistryError:
    return RegistryError(
        RegistryCode.FAILED,
        f"The registry failed in a way it shouldn't: {_first_line(error)}.",
        "Please report this, with what the service was doing.",
    )


def _first_line(error: BaseException | None) -> str:
    # The lines after the first repeat row contents, which may say more than a log should.
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
