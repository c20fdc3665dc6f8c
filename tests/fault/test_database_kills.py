"""Kill -9 of PostgreSQL in the midst of claims, and of the very commit that grants one."""

import asyncio
import itertools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import psutil
import psycopg
import pytest
import pytest_asyncio
from sqlalchemy.engine.default import DefaultDialect

from broker.entry.mqtt import router
from broker.services.confirm import ConfirmService
from broker.services.enroll import EnrollService
from broker.settings import BrokerKind
from tests.support.fleets import Fleet
from tests.support.postgres import PostgresCluster, postgres_cluster
from tests.support.stack import Plan, Stack, running_stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEVICES: Final = 6
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def mortal() -> Iterator[PostgresCluster]:
    """A server of these tests' own."""
    with postgres_cluster() as cluster:
        yield cluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack(
    mortal: PostgresCluster, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stack]:
    plan = Plan(BrokerKind.MOSQUITTO, mortal.new_database(), limits={"client_claims_burst": 1000})
    with pytest.MonkeyPatch.context() as patch:
        # What devices are told to wait would be most of the time that these tests take.
        patch.setattr(router, "_RETRY_AFTER_FAILURE_S", 1)
        patch.setattr(router, "_RETRY_WHEN_BUSY_S", 1)
        async with running_stack(tmp_path_factory.mktemp("stack"), plan) as running:
            await running.installation.standard([])
            yield running


class Killer:
    """Kills the server at the second occurrence of a step, from the registry's own thread."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self.killed = asyncio.Event()
        self._cluster = cluster
        self._loop = asyncio.get_running_loop()
        self._left = 2

    def at_step(self) -> None:
        self._left -= 1
        if self._left == 0:
            kill_server(self._cluster)
            self._loop.call_soon_threadsafe(self.killed.set)

    def around(self, patch: pytest.MonkeyPatch, owner: type, method: str, *, before: bool) -> None:
        """The step is before or after each call."""
        real: Callable[..., Any] = getattr(owner, method)

        def wrapped(*args: Any) -> Any:
            if before:
                self.at_step()
            result = real(*args)
            if not before:
                self.at_step()
            return result

        patch.setattr(owner, method, wrapped)

    def around_commit(
        self, patch: pytest.MonkeyPatch, *, before: bool, unheard: bool = False
    ) -> None:
        """The same for the writer's commits; `unheard` has the commit done and its answer lost."""
        real: Callable[..., Any] = DefaultDialect.do_commit

        def wrapped(dialect: Any, connection: Any) -> None:
            is_writer = threading.current_thread().name == "registry-writer"
            if is_writer and before:
                self.at_step()
            real(dialect, connection)
            if is_writer and not before:
                self.at_step()
                if unheard and self.kills_now():
                    raise psycopg.OperationalError("server closed the connection unexpectedly")

        patch.setattr(DefaultDialect, "do_commit", wrapped)

    def kills_now(self) -> bool:
        """Whether this very step was the one."""
        return self._left == 0


Watch = Callable[[Killer, pytest.MonkeyPatch], None]


def kill_server(cluster: PostgresCluster) -> None:
    """Kill -9 of the server and all its processes: nothing is written, nobody is told."""
    assert cluster._server is not None
    server = psutil.Process(cluster._server.pid)
    children = server.children(recursive=True)
    # The server first: it would begin to recover from its children's death.
    for process in [server, *children]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    cluster._server.wait()


def at_work(owner: type, method: str, *, before: bool) -> Watch:
    return lambda killer, patch: killer.around(patch, owner, method, before=before)


WAYS: Final[dict[str, Watch]] = {
    "claim-begun": at_work(EnrollService, "_claim", before=True),
    "claim-decided": at_work(EnrollService, "_claim", before=False),
    "confirm-begun": at_work(ConfirmService, "_confirm", before=True),
    "confirm-decided": at_work(ConfirmService, "_confirm", before=False),
    "commit-before": lambda killer, patch: killer.around_commit(patch, before=True),
    "commit-after": lambda killer, patch: killer.around_commit(patch, before=False),
    "commit-unheard": lambda killer, patch: killer.around_commit(patch, before=False, unheard=True),
}


@pytest.mark.parametrize("step", WAYS)
async def test_kill_at(
    stack: Stack,
    mortal: PostgresCluster,
    step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fleet = Fleet(stack, tmp_path, [f"{step}-{next(_numbers)}" for _ in range(DEVICES)])
    await fleet.register()
    killer = Killer(mortal)
    WAYS[step](killer, monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        claims = tasks.create_task(fleet.claim())
        async with asyncio.timeout(60):
            await killer.killed.wait()
        await asyncio.to_thread(mortal.start)
        await claims
    await fleet.assert_whole()
