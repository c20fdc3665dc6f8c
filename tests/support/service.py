"""The service, as a task of the test or as a process that can be killed."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from broker.adapters.ca.home import MusterHome
from broker.composition.app import Muster, Running
from broker.settings import load_settings
from tests.support.waiting import eventually

START_S: Final = 60.0
_STOP_S: Final = 60.0


class Service(Protocol):
    """What runs one installation; it can be started again after it ended."""

    async def start(self) -> None:
        """Returns when devices can claim."""

    async def stop(self) -> None:
        """Ends it in order; harmless when it has ended."""


class ServiceTask:
    """The service in the test's own event loop: quick, and nothing between it and the test."""

    def __init__(self, home: MusterHome) -> None:
        self._home = home
        self._task: asyncio.Task[None] | None = None
        self._stop = asyncio.Event()

    async def start(self) -> None:
        """Returns when devices can claim; raises what stopped it instead."""
        ready = asyncio.Event()
        self._stop = asyncio.Event()

        def on_ready(_: Running) -> None:
            ready.set()

        muster = Muster(self._home, load_settings(self._home.path), None)
        self._task = asyncio.create_task(muster.run(on_ready, self._stop))
        waiting = asyncio.create_task(ready.wait())
        try:
            await asyncio.wait(
                {waiting, self._task}, timeout=START_S, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            waiting.cancel()
        if self._task.done():
            await self._task
        assert ready.is_set(), f"the service wasn't ready within {START_S:g} s"

    async def stop(self) -> None:
        """Ends it in order, and raises what it ended with."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stop.set()
        async with asyncio.timeout(_STOP_S):
            await task


class ServiceProcess:
    """`muster up` as a process of its own, whose log goes on in one file over all its lives."""

    def __init__(self, home: MusterHome, log: Path) -> None:
        self.environment: dict[str, str] = {}
        """What its next lives have in theirs, besides the test's own."""
        self.arguments = ("--home", str(home.path), "up", "--log-format", "json")
        self.log_file = log
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Returns when devices can claim."""
        read = len(self.lines())
        await self.launch("-m", "broker.entry.cli.main")

        def is_ready() -> bool:
            assert self.is_running, f"the service ended at its start:\n{self.log()}"
            return any(line.get("event") == "ready" for line in self.lines()[read:])

        await eventually(is_ready, within=START_S)

    async def launch(self, *program: str) -> None:
        """Starts `python {program} --home … up` and doesn't wait."""
        assert not self.is_running, "the service runs already"
        with self.log_file.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *program,
                *self.arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self.environment},
            )

    async def dies(self, module: str, step: str) -> None:
        """Starts it as `tests.fault.{module}`, which kills itself at `step`."""
        await self.launch("-m", f"tests.fault.{module}", step)
        await self.has_died()

    async def has_died(self, within: float = 60) -> None:
        """Returns when it has killed itself, and not otherwise."""
        ended = await self.ended(within)
        assert ended == -signal.SIGKILL, self.log()[-3000:]

    async def kill(self) -> None:
        """Kill -9."""
        if self.is_running:
            self.send(signal.SIGKILL)
            await self.ended(_STOP_S)

    async def stop(self) -> None:
        """Ends it in order."""
        if not self.is_running:
            return
        self.send(signal.SIGTERM)
        try:
            assert await self.ended(_STOP_S) == 0, self.log()[-5000:]
        finally:
            await self.kill()

    async def end(self) -> None:
        """Nothing is left of it afterwards."""
        await self.kill()

    async def ended(self, within: float) -> int:
        """Its exit status, negative for a signal; TimeoutError when it goes on."""
        assert self._process is not None
        async with asyncio.timeout(within):
            return await self._process.wait()

    @property
    def is_running(self) -> bool:
        """Whether there is such a process."""
        return self._process is not None and self._process.returncode is None

    def send(self, number: int) -> None:
        """A signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def log(self) -> str:
        """What all its lives have logged."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def lines(self, event: str | None = None) -> Sequence[Mapping[str, Any]]:
        """The log's whole lines of this event, or of any."""
        found = [_parsed(line) for line in self.log().splitlines(keepends=True)]
        return [line for line in found if line and event in (None, line.get("event"))]


def _parsed(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line) if line.endswith("\n") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
