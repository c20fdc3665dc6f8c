"""Group commit: many works in one transaction, and each alone when one of them spoils it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa

from broker.adapters.registry.errors import DATABASE_ERRORS, is_lost, translated
from broker.adapters.registry.session import Compiler, Session
from broker.adapters.registry.transaction import SqlTransaction, transaction_on
from broker.ports.registry import RegistryError

Work = Callable[[SqlTransaction], object]


@dataclass(frozen=True)
class Done:
    """The work's writes are durable."""

    value: object


@dataclass(frozen=True)
class Failed:
    """Nothing that the work wrote was kept."""

    error: BaseException


Outcome = Done | Failed


class DatabaseFailure(Exception):
    """The database broke a transaction off; nothing of it was kept, unless its commit was `lost`.

    `begun` says whether any work had its turn; without, the failure is nobody's fault.
    """

    def __init__(self, cause: Exception, *, begun: bool) -> None:
        super().__init__(str(cause))
        self.error: RegistryError = translated(cause)
        self.lost = is_lost(cause)
        self.concerns_everyone = self.lost or not begun


class _Spoiled(Exception):
    """A work failed after it had written; the whole transaction has to go."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class OpenConnection:
    """One thread's connection, kept open from one transaction to the next: taking it out of
    SQLAlchemy's pool and putting it back costs a small transaction a tenth of its time."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._connection: sa.Connection | None = None

    def get(self) -> sa.Connection:
        """The connection, made when there is none.

        Raises:
            SQLAlchemyError: the database can't be reached.
        """
        if self._connection is None:
            self._connection = self.engine.connect()
        return self._connection

    def close(self) -> None:
        """Ends it; the next transaction makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            # Given back alive, it would rest in the pool, dead or not.
            connection.invalidate()
            connection.close()


@contextmanager
def open_transaction(
    connection: OpenConnection, compiler: Compiler
) -> Iterator[tuple[SqlTransaction, Session]]:
    """A transaction that is committed when the block ends, and undone when it raises.

    Raises:
        DatabaseFailure: the database failed at any point, even if the block ignored that.
    """
    session: Session | None = None
    try:
        own = connection.get()
        with own.begin():
            transaction, session = transaction_on(own, compiler)
            try:
                yield transaction, session
                session.flush()
                if session.failure:
                    raise session.failure
            finally:
                # An open cursor would keep SQLite's lock beyond its connection's end.
                session.close()
                if session.failure:
                    # SQLAlchemy doesn't see the cursor's errors: it would keep a dead connection.
                    own.invalidate()
    except BaseException as error:
        failure = session.failure if session else None
        if failure is None and isinstance(error, DATABASE_ERRORS):
            failure = error
        if failure is None:
            raise
        connection.close()
        raise DatabaseFailure(failure, begun=session is not None) from error


class BatchRunner:
    """Runs works in their order; a crash leaves all of each or nothing. For one thread."""

    def __init__(self, engine: sa.Engine) -> None:
        self._connection = OpenConnection(engine)
        self._compiler = Compiler(engine.dialect)

    def close(self) -> None:
        """Lets go of the database."""
        self._connection.close()
        self._connection.engine.dispose()

    def run(self, works: Sequence[Work]) -> list[Outcome]:
        """What became of each work; everything done is durable on return. Never raises.

        A work may run several times, but what it writes counts once.
        """
        try:
            return self._together_or_again(works)
        except DatabaseFailure as failure:
            if len(works) == 1 or failure.concerns_everyone:
                return [Failed(failure.error)] * len(works)
        except _Spoiled as spoiled:
            if len(works) == 1:
                return [Failed(spoiled.error)]
        except Exception as error:  # the driver's on what a work wrote: only that one is to fail
            if len(works) == 1:
                return [Failed(error)]
        return self._one_by_one(works)

    def _one_by_one(self, works: Sequence[Work]) -> list[Outcome]:
        return [outcome for work in works for outcome in self.run([work])]

    def _together_or_again(self, works: Sequence[Work]) -> list[Outcome]:
        try:
            return self._together(works)
        except DatabaseFailure as failure:
            if not failure.lost:
                raise
        # A server that was restarted answers on a new connection. If the commit was done after
        # all, the works find their own traces: they are idempotent by contract.
        return self._together(works)

    def _together(self, works: Sequence[Work]) -> list[Outcome]:
        with open_transaction(self._connection, self._compiler) as (transaction, session):
            return [_carry_out(work, transaction, session) for work in works]


def _carry_out(work: Work, transaction: SqlTransaction, session: Session) -> Outcome:
    before = session.changes
    try:
        value = work(transaction)
    # Also what isn't an Exception: whoever waits for the outcome must get one.
    except BaseException as error:
        if session.failure or session.changes != before:
            raise _Spoiled(error) from error
        return Failed(error)
    if session.failure:  # the work ignored it; the transaction is past saving all the same
        raise _Spoiled(session.failure)
    return Done(value)
