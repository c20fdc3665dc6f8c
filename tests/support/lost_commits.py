"""Commits that are done and of which nobody hears: the connection breaks at that moment."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest
import sqlalchemy as sa

from broker.adapters.registry import batch
from broker.adapters.registry.batch import DatabaseFailure, OpenConnection
from broker.adapters.registry.session import Compiler, Session
from broker.adapters.registry.transaction import SqlTransaction
from tests.support.operating import SetClock

_LATER = timedelta(seconds=3)


class LostCommits:
    """While the context lasts each work's first commit is lost, and it's found done on the next
    connection, some seconds later by the clock."""

    def __init__(self, clock: SetClock) -> None:
        self.lost = 0
        self._clock = clock
        self._is_second = False
        self._open = batch.open_transaction

    @contextmanager
    def losing(self) -> Iterator[None]:
        """The context."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "open_transaction", self._transaction)
            yield

    @contextmanager
    def _transaction(
        self, connection: OpenConnection, compiler: Compiler
    ) -> Iterator[tuple[SqlTransaction, Session]]:
        with self._open(connection, compiler) as opened:
            yield opened
        self._is_second = not self._is_second
        if self._is_second:
            self.lost += 1
            self._clock.at += _LATER
            error = psycopg.OperationalError("server closed the connection unexpectedly")
            raise DatabaseFailure(error, begun=True)
        self._clock.at -= _LATER


def all_rows(url: str) -> dict[str, list[str]]:
    """Everything that the registry holds, by table."""
    engine = sa.create_engine(url)
    tables = sa.MetaData()
    with engine.connect() as connection:
        tables.reflect(connection)
        rows = {
            table.name: sorted(str(tuple(row)) for row in connection.execute(sa.select(table)))
            for table in tables.sorted_tables
        }
    engine.dispose()
    return rows
