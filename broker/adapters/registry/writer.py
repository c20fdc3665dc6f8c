"""The one thread that writes: it takes all that waits and commits it together."""

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa

from broker.adapters.registry.batch import BatchRunner, Done, Outcome, Work
from broker.adapters.registry.errors import busy, closed
from broker.ports.registry import RegistryError


@dataclass(frozen=True, eq=False)
class _Job:
    work: Work
    future: "asyncio.Future[Any]"


class Writer:
    """Runs works in the order they came in, in batches as large as what waits.

    At most `max_waiting` works wait and `max_batch` share a commit. Bound to one event loop.
    """

    def __init__(self, engine: sa.Engine, max_batch: int, max_waiting: int) -> None:
        self._runner = BatchRunner(engine)
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._serve, name="registry-writer", daemon=True)
        self._thread.start()

    def submit(self, work: Work) -> "asyncio.Future[Any]":
        """What `work` returns or raises, once its transaction is over.

        A cancelled future whose work hasn't begun takes the work with it.

        Raises:
            RegistryError: `registry_busy` or `registry_closed`.
        """
        job = _Job(work, self._loop.create_future())
        with self._changed:
            if self._closing:
                raise closed()
            if len(self._waiting) >= self._max_waiting:
                raise busy(f"{self._max_waiting} changes wait for the registry already.")
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def finish(self) -> None:
        """Takes nothing more, and returns when what waits is done and the database is let go.

        Blocks: call it in a thread.
        """
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _serve(self) -> None:
        try:
            while (jobs := self._next()) is not None:
                outcomes = self._runner.run([job.work for job in jobs])
                self._loop.call_soon_threadsafe(_deliver, jobs, outcomes)
        finally:
            self._runner.close()

    def _next(self) -> list[_Job] | None:
        with self._changed:
            while not self._waiting:
                if self._closing:
                    return None
                self._changed.wait()
            taken = list(islice(self._waiting, self._max_batch))
            for _ in taken:
                self._waiting.popleft()
        return [job for job in taken if not job.future.cancelled()]


def _deliver(jobs: Sequence[_Job], outcomes: Sequence[Outcome]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, Done):
            job.future.set_result(outcome.value)
        else:
            job.future.set_exception(_own_copy(outcome.error))


def _own_copy(error: BaseException) -> BaseException:
    """An exception that its awaiter may raise: a shared one would collect everyone's traceback."""
    if isinstance(error, RegistryError):
        copy = type(error)(error.code, str(error), error.remedy)
        copy.__cause__ = error
        return copy
    if isinstance(error, StopIteration):  # asyncio can't carry it
        return RuntimeError(f"a work raised {error!r}")
    return error
