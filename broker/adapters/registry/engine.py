"""Connections to the two databases, made so that a commit is durable and a wait has an end."""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from broker.adapters.registry.errors import RegistryCode
from broker.adapters.registry.sqlite_file import RegistryFile
from broker.ports.registry import RegistryError

SQLITE_SETTINGS: Final[dict[str, str]] = {
    "busy_timeout": "10000",
    "journal_mode": "WAL",
    "synchronous": "FULL",
    "foreign_keys": "ON",
    "trusted_schema": "OFF",
    # In KiB: the upper levels of the indexes of a million devices fit, random leaves don't matter.
    "cache_size": "-65536",
    # In pages of 4 KiB. In a large fleet each claim touches pages of its own; seldom copying them
    # back from the journal costs 32 MiB of disk and spares a tenth of a claim.
    "wal_autocheckpoint": "8192",
    # A journal that one import made large gives its room back.
    "journal_size_limit": "67108864",
}

# A server that stops answering must not stop us for hours, nor may we hold its lock for ever.
_POSTGRESQL_CONNECTION: Final[dict[str, str]] = {
    "application_name": "muster",
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
_POSTGRESQL_SETTINGS: Final = (
    "SET lock_timeout = '10s'",
    "SET idle_in_transaction_session_timeout = '60s'",
    # Whoever stores certificates can't live with a commit that a crash undoes.
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'",
)

WRITER_LOCK: Final = 0x6D757374
"""The advisory lock that makes all writers of one PostgreSQL database one ("must" in ASCII)."""


def parsed(url: str) -> URL:
    """The registry's URL for SQLAlchemy.

    Raises:
        RegistryError: it names no database that Muster can use; the text never repeats it.
    """
    try:
        found = make_url(url)
    except (ArgumentError, ValueError):
        raise _url_invalid() from None
    if found.drivername == "sqlite" and found.database and found.database != ":memory:":
        return found
    if found.drivername in ("postgresql", "postgresql+psycopg") and found.database:
        query = {**_POSTGRESQL_CONNECTION, **found.query}
        return found.set(drivername="postgresql+psycopg", query=query)
    raise _url_invalid()


def writing_engine(url: str) -> sa.Engine:
    """An engine with one connection, whose transactions exclude every other writer's.

    It doesn't connect yet. An SQLite file that isn't there is made, readable by its owner only.

    Raises:
        RegistryError: the URL is of no use, or the file can't be made.
    """
    where = parsed(url)
    if where.drivername == "sqlite":
        _create_private(Path(where.database or ""))
        return _sqlite_engine(where, 1, SQLITE_SETTINGS, "BEGIN IMMEDIATE")
    engine = _postgresql_engine(where, 1)
    lock = sa.select(sa.func.pg_advisory_xact_lock(WRITER_LOCK))
    sa.event.listen(engine, "begin", lambda connection: connection.execute(lock))
    return engine


def reading_engine(url: str, connections: int) -> sa.Engine:
    """An engine whose transactions see one moment of the registry and can't change it.

    Raises:
        RegistryError: the URL is of no use.
    """
    where = parsed(url)
    if where.drivername == "sqlite":
        settings = {**SQLITE_SETTINGS, "query_only": "ON", "cache_size": "-16384"}
        return _sqlite_engine(where, connections, settings, "BEGIN DEFERRED")
    return _postgresql_engine(where, connections).execution_options(
        isolation_level="REPEATABLE READ", postgresql_readonly=True
    )


def watching_engine(url: str) -> sa.Engine:
    """An engine with one connection that changes nothing, for statements outside of transactions.

    Raises:
        RegistryError: the URL is of no use.
    """
    where = parsed(url)
    if where.drivername == "sqlite":
        return _sqlite_engine(where, 1, {**SQLITE_SETTINGS, "query_only": "ON"}, "BEGIN")
    return _postgresql_engine(where, 1).execution_options(isolation_level="AUTOCOMMIT")


def _sqlite_engine(
    url: URL, connections: int, settings: Mapping[str, str], begin: str
) -> sa.Engine:
    engine = sa.create_engine(
        url,
        paramstyle="named",
        pool_size=connections,
        max_overflow=0,
        hide_parameters=True,
        # The driver's own transactions begin late and not at DDL; ours are begun below.
        connect_args={"isolation_level": None},
    )

    def configure(connection: sqlite3.Connection, _: object) -> None:
        for name, value in settings.items():
            connection.execute(f"PRAGMA {name} = {value}").close()

    def begun(connection: sa.Connection) -> None:
        file.check()
        # The driver's, as in a session: SQLAlchemy's way to two words costs ten times theirs.
        cursor = connection.connection.cursor()
        cursor.execute(begin)
        cursor.close()

    file = RegistryFile(Path(url.database or ""))
    # Before connecting, too: SQLite would make a file that isn't there.
    sa.event.listen(engine, "do_connect", lambda *_: file.check())
    sa.event.listen(engine, "connect", configure)
    sa.event.listen(engine, "begin", begun)
    return engine


def _postgresql_engine(url: URL, connections: int) -> sa.Engine:
    engine = sa.create_engine(url, pool_size=connections, max_overflow=0, hide_parameters=True)

    def configure(connection: psycopg.Connection[Any], _: object) -> None:
        for statement in _POSTGRESQL_SETTINGS:
            connection.execute(statement.encode())
        connection.commit()

    sa.event.listen(engine, "connect", configure)
    return engine


def _create_private(path: Path) -> None:
    # SQLite gives its journal files the rights of the file itself.
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise RegistryError(
            RegistryCode.UNAVAILABLE,
            f"The registry's file can't be made: {error.strerror}: {path}",
            "Make the directory first ('muster init DIR' does), or correct the registry's URL.",
        ) from error


def _url_invalid() -> RegistryError:
    return RegistryError(
        RegistryCode.URL_INVALID,
        "The registry's URL names no database that Muster can use.",
        "Write sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE.",
    )
