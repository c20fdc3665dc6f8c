"""Noticing that somebody has changed the registry, without asking for what it holds."""

import threading
from collections.abc import Hashable
from typing import Any, Final

import sqlalchemy as sa

from broker.adapters.registry.engine import watching_engine
from broker.adapters.registry.errors import DATABASE_ERRORS, translated

_QUESTIONS: Final = {
    # Changes with every commit on another connection of whichever process.
    "sqlite": "PRAGMA data_version",
    # Which transactions are over: any that commits changes it, those of other databases too.
    "postgresql": "SELECT pg_current_snapshot()::text",
}


class Watch:
    """One connection that asks for nothing else."""

    def __init__(self, url: str) -> None:
        self._engine = watching_engine(url)
        self._question = _QUESTIONS[self._engine.dialect.name]
        self._connection: sa.Connection | None = None
        self._lock = threading.Lock()

    def version(self) -> Hashable:
        """Another value after each commit. Blocks.

        Raises:
            RegistryError: the registry can't be asked; the next call connects anew.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = self._engine.connect()
                return self._ask(self._connection)
            except DATABASE_ERRORS as error:
                self._disconnect()
                raise translated(error) from error

    def finish(self) -> None:
        """Lets go of the database. Blocks."""
        with self._lock:
            self._disconnect()
            self._engine.dispose()

    def _ask(self, connection: sa.Connection) -> Hashable:
        # The driver's cursor: a transaction would cost more than the question.
        cursor: Any = connection.connection.cursor()
        try:
            cursor.execute(self._question)
            (found,) = cursor.fetchone()
        finally:
            cursor.close()
        version: Hashable = found
        return version

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()
