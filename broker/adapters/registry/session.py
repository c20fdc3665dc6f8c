"""Statements on one open transaction, at little more than the driver's own cost.

SQLAlchemy writes each statement once per database; after that the driver's cursor runs the text.
Running them through SQLAlchemy would cost a claim more than its policy and its signature together.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.dml import UpdateBase

from broker.adapters.registry.errors import DATABASE_ERRORS, translated
from broker.ports.registry import RegistryError

Row = tuple[Any, ...]
Parameters = Mapping[str, object]


@dataclass(frozen=True, eq=False)
class Upsert:
    """Inserts a row, or replaces the row that has its key, all but the columns in `kept`.

    Columns that the database numbers by itself (`generated`) aren't given and never change.
    """

    table: sa.Table
    key: tuple[str, ...]
    kept: frozenset[str] = frozenset()
    generated: frozenset[str] = frozenset()


Statement = sa.Select[Any] | UpdateBase | sa.TextClause | Upsert


class Compiler:
    """The text of each statement for one database, made at its first use. Safe among threads:
    at worst a text is made twice."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._dialect = dialect
        self._known: dict[Statement, tuple[str, Parameters]] = {}

    def text(self, statement: Statement) -> tuple[str, Parameters]:
        """The driver's text, and the values of parameters that are part of the statement."""
        known = self._known.get(statement)
        if known is None:
            known = self._known[statement] = self._compile(statement)
        return known

    def _compile(self, statement: Statement) -> tuple[str, Parameters]:
        if isinstance(statement, Upsert):
            statement = self._upsert(statement)
        compiled = statement.compile(dialect=self._dialect)
        given = {name: value for name, value in compiled.params.items() if value is not None}
        return str(compiled), given

    def _upsert(self, upsert: Upsert) -> UpdateBase:
        insert = sqlite.insert if self._dialect.name == "sqlite" else postgresql.insert
        names = [c.name for c in upsert.table.columns if c.name not in upsert.generated]
        statement = insert(upsert.table).values({name: sa.bindparam(name) for name in names})
        statement = statement.inline()
        fixed = {*upsert.key, *upsert.kept}
        replaced = {name: statement.excluded[name] for name in names if name not in fixed}
        if not replaced:
            return statement.on_conflict_do_nothing(index_elements=upsert.key)
        return statement.on_conflict_do_update(index_elements=upsert.key, set_=replaced)


class Session:
    """One transaction's statements, and the writes that wait to be sent together.

    What waits is sent before any statement that could see it, and before the commit. `order` says
    in which order it is sent, whatever the order of the calls: what is referred to comes first.
    """

    def __init__(
        self, connection: sa.Connection, compiler: Compiler, order: Sequence[Statement]
    ) -> None:
        self.connection = connection
        self.changes = 0
        """How often anything was written or put to wait."""
        self.failure: Exception | None = None
        """The first error of the database; with it the transaction is past saving."""
        self._compiler = compiler
        # The driver's: SQLAlchemy's wrapper would forward each call and each row.
        self._cursor: Any = connection.connection.cursor()
        self._waiting: dict[Statement, dict[Hashable, Parameters]] = {s: {} for s in order}
        self._seen_by: set[Hashable] = set()

    def rows(self, statement: Statement, parameters: Parameters) -> list[Row]:
        """What a query finds. It doesn't see what waits: see `flush_for`."""
        text, given = self._compiler.text(statement)
        try:
            self._cursor.execute(text, {**given, **parameters} if given else parameters)
            found: list[Row] = self._cursor.fetchall()
        except DATABASE_ERRORS as error:
            raise self._failed(error) from error
        return found

    def select(self, statement: "sa.Select[Any]") -> list[Row]:
        """As `rows`, for a query that is put together anew each time; slower, but sees all."""
        self.flush()
        try:
            return [tuple(row) for row in self.connection.execute(statement)]
        except DATABASE_ERRORS as error:
            raise self._failed(error) from error

    def write(self, statement: Statement, rows: Sequence[Parameters]) -> int:
        """Runs `statement` at once for every row; returns how many rows it changed."""
        self.flush()
        self.changes += 1
        return self._send(statement, rows) if rows else 0

    def later(
        self,
        statement: Statement,
        key: Hashable,
        row: Parameters,
        seen_by: Iterable[Hashable] = (),
    ) -> None:
        """Puts a write to wait; a later one of the same statement and key takes its place.

        `seen_by` are the questions whose answer it changes, as `flush_for` names them.
        """
        self.changes += 1
        self._waiting[statement][key] = row
        self._seen_by.update(seen_by)

    def flush_for(self, question: Hashable) -> None:
        """Sends what waits, if it changes the answer to `question`."""
        if question in self._seen_by:
            self.flush()

    def flush(self) -> None:
        """Sends all that waits."""
        for statement, rows in self._waiting.items():
            if rows:
                self._send(statement, list(rows.values()))
                rows.clear()
        self._seen_by.clear()

    def close(self) -> None:
        """Lets go of the driver's cursor."""
        self._cursor.close()

    def _send(self, statement: Statement, rows: Sequence[Parameters]) -> int:
        text, given = self._compiler.text(statement)
        if given:
            rows = [{**given, **row} for row in rows]
        try:
            if len(rows) == 1:
                self._cursor.execute(text, rows[0])
            else:
                self._cursor.executemany(text, rows)
        except DATABASE_ERRORS as error:
            raise self._failed(error) from error
        return int(self._cursor.rowcount)

    def _failed(self, error: Exception) -> RegistryError:
        self.failure = self.failure or error
        return translated(error)


class Part:
    """What a transaction can do with one subject; `transaction` puts the parts together."""

    def __init__(self, session: Session) -> None:
        self._session = session
