"""The registry on SQLite or PostgreSQL."""

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import sqlalchemy as sa

from broker.adapters.registry.batch import DatabaseFailure, OpenConnection, open_transaction
from broker.adapters.registry.engine import reading_engine, writing_engine
from broker.adapters.registry.errors import busy, closed
from broker.adapters.registry.migrate import check
from broker.adapters.registry.session import Compiler
from broker.adapters.registry.watching import Watch
from broker.adapters.registry.writer import Writer
from broker.ports.registry import ReadTransaction, WriteTransaction

ResultT = TypeVar("ResultT")

_READERS: Final = 4


class SqlRegistry:
    """A `Registry` in a database: one writer with group commit, a few readers beside it.

    Usable between `start` and `stop`, on the event loop that started it; or with `async with`.

    Args:
        url: `sqlite:///PATH` or `postgresql://USER:PASSWORD@HOST/DATABASE`, migrated already.
        max_batch: how many works may share one commit.
        max_waiting: how many works may wait to write, and how many to read.
        on_written: called after each work that was committed.
    """

    def __init__(
        self,
        url: str,
        *,
        max_batch: int = 256,
        max_waiting: int = 2000,
        on_written: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = url
        self._on_written = on_written
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._writer: Writer | None = None
        self._watch: Watch | None = None
        self._readers: _Readers | None = None

    @property
    def url(self) -> str:
        """Where it is. May hold a password: never show it."""
        return self._url

    async def start(self) -> None:
        """Opens the registry.

        Raises:
            RegistryError: it can't be used: `schema_newer`, `schema_older`,
                `registry_unavailable`, `registry_url_invalid`.
        """
        await asyncio.to_thread(check, self._url)
        self._readers = _Readers(reading_engine(self._url, _READERS), self._max_waiting)
        self._writer = Writer(writing_engine(self._url), self._max_batch, self._max_waiting)
        self._watch = Watch(self._url)

    async def stop(self) -> None:
        """Finishes what waits, then closes the registry. Stopping twice is harmless."""
        writer, self._writer = self._writer, None
        readers, self._readers = self._readers, None
        watch, self._watch = self._watch, None
        if writer:
            await asyncio.to_thread(writer.finish)
        if readers:
            await asyncio.to_thread(readers.finish)
        if watch:
            await asyncio.to_thread(watch.finish)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.stop()

    async def write(self, work: Callable[[WriteTransaction], ResultT]) -> ResultT:
        if self._writer is None:
            raise closed()
        result = cast("ResultT", await self._writer.submit(work))
        self._on_written()
        return result

    async def read(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        if self._readers is None:
            raise closed()
        return await self._readers.run(work)

    def version(self) -> Hashable:
        """Another value after each commit, whoever's it was. Nearly free, but it blocks.

        Raises:
            RegistryError: the registry can't be used.
        """
        watch = self._watch
        if watch is None:
            raise closed()
        return watch.version()


class _Readers:
    """Threads that read, each on a connection of its own."""

    def __init__(self, engine: sa.Engine, max_waiting: int) -> None:
        self._engine = engine
        self._compiler = Compiler(engine.dialect)
        self._threads = ThreadPoolExecutor(_READERS, thread_name_prefix="registry-reader")
        self._own = threading.local()
        self._connections: list[OpenConnection] = []
        self._max_waiting = max_waiting
        self._waiting = 0

    async def run(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        if self._waiting >= self._max_waiting:
            raise busy(f"{self._max_waiting} questions wait for the registry already.")
        future = asyncio.get_running_loop().run_in_executor(self._threads, self._read, work)
        self._waiting += 1
        # Not when this coroutine ends: a thread goes on with what its caller has given up.
        future.add_done_callback(self._ended)
        return await future

    def finish(self) -> None:
        """Ends the threads and lets go of the database. Blocks until the last work ends."""
        self._threads.shutdown()
        for connection in self._connections:
            connection.close()
        self._engine.dispose()

    def _ended(self, _: object) -> None:
        self._waiting -= 1

    def _read(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        try:
            return self._read_once(work)
        except DatabaseFailure as failure:
            if not failure.lost:
                raise failure.error from failure
        try:
            return self._read_once(work)
        except DatabaseFailure as failure:
            raise failure.error from failure

    def _read_once(self, work: Callable[[ReadTransaction], ResultT]) -> ResultT:
        with open_transaction(self._connection(), self._compiler) as (transaction, _):
            return work(transaction)

    def _connection(self) -> OpenConnection:
        try:
            own: OpenConnection = self._own.connection
        except AttributeError:
            own = self._own.connection = OpenConnection(self._engine)
            self._connections.append(own)
        return own
