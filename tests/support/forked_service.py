"""The service as a process that was forked, for tests that start it many times."""

import asyncio
import json
import os
import sys
from pathlib import Path

from broker.adapters.ca.home import MusterHome
from tests.support.service import ServiceProcess


class ForkedService(ServiceProcess):
    """As `ServiceProcess`, without the time that imports take: `tests.support.forker` has them."""

    def __init__(self, home: MusterHome, log: Path) -> None:
        super().__init__(home, log)
        self._forker: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._status: asyncio.Task[int] | None = None

    async def launch(self, *program: str) -> None:
        """Starts `python {program} --home … up` and doesn't wait."""
        assert not self.is_running, "the service runs already"
        dash_m, module, *arguments = program
        assert dash_m == "-m"
        order = {
            "module": module,
            "arguments": [*arguments, *self.arguments],
            "log": str(self.log_file),
            "environment": {**os.environ, **self.environment},
        }
        forker = await self._at_hand()
        assert forker.stdin is not None
        forker.stdin.write(json.dumps(order).encode() + b"\n")
        await forker.stdin.drain()
        self._pid = await _answer(forker, "pid")
        self._status = asyncio.create_task(_answer(forker, "status"))

    async def ended(self, within: float) -> int:
        """Its exit status, negative for a signal; TimeoutError when it goes on."""
        assert self._status is not None
        async with asyncio.timeout(within):
            return await asyncio.shield(self._status)

    async def end(self) -> None:
        """Kills it, and ends the forker."""
        await self.kill()
        if self._forker is not None:
            assert self._forker.stdin is not None
            self._forker.stdin.close()
            await self._forker.wait()

    @property
    def is_running(self) -> bool:
        """Whether there is such a process."""
        return self._status is not None and not self._status.done()

    def send(self, number: int) -> None:
        """A signal."""
        os.kill(self._pid, number)

    async def _at_hand(self) -> asyncio.subprocess.Process:
        if self._forker is None:
            self._forker = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.forker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
        return self._forker


async def _answer(forker: asyncio.subprocess.Process, key: str) -> int:
    assert forker.stdout is not None
    line = await forker.stdout.readline()
    assert line, "tests.support.forker has ended; what it said is in the captured stderr"
    found = json.loads(line)[key]
    assert isinstance(found, int)
    return found
