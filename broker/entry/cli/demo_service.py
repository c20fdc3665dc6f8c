"""The service as a process of its own, for as long as a demonstration lasts."""

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from broker.services.problems import Problem, ProblemCode

_START_S: Final = 30.0
_STOP_S: Final = 7.0
_LOG_FILE: Final = "service.log"
_KEPT_LINES: Final = 5


class _Log:
    """The service's log: kept in a file, its last lines at hand."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.last: deque[str] = deque(maxlen=_KEPT_LINES)

    async def follow(self, stream: asyncio.StreamReader | None, path: Path) -> None:
        """Reads until the service closes its end, so that it never waits for a full pipe."""
        if stream is None:
            raise ValueError("the service was started without a pipe")
        with path.open("w", encoding="utf-8") as file:
            while line := (await stream.readline()).decode("utf-8", "replace"):
                file.write(line)
                self.last.append(line.rstrip())
                if _event(line) == "ready":
                    self.ready.set()


@asynccontextmanager
async def running_service(home: Path) -> AsyncIterator[None]:
    """`muster up` on this home, ready for claims; stopped at the end of the block.

    Raises:
        Problem: SERVICE_STOPPED when it ended, or wasn't ready in time.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "broker.entry.cli.main", "--home", str(home)),
        *("up", "--log-format", "json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    log = _Log()
    following = asyncio.create_task(log.follow(process.stderr, home.parent / _LOG_FILE))
    try:
        await _until_ready(log, following)
        yield
    finally:
        await _stop(process)
        await following


async def _until_ready(log: _Log, following: asyncio.Task[None]) -> None:
    ready = asyncio.create_task(log.ready.wait())
    try:
        await asyncio.wait(
            {ready, following}, timeout=_START_S, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        ready.cancel()
    if not log.ready.is_set():
        raise Problem(
            ProblemCode.SERVICE_STOPPED,
            "The service didn't start. It said last:\n" + "\n".join(log.last),
            "Run 'muster demo --keep', then 'muster up' on the installation that it leaves.",
        )


async def _stop(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


def _event(line: str) -> str | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found.get("event") if isinstance(found, dict) else None
