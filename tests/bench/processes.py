"""Processes of a measurement: started, awaited until they are ready, and ended."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import psutil

from tests.support.waiting import eventually

_END_S: Final = 15.0
_START_S: Final = 30.0


@asynccontextmanager
async def running(
    *command: str | Path, log: Path, ready: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A program that has said `ready` in its log (both of its outputs); ended at the end.

    Raises:
        AssertionError: it ended at its start, or isn't ready in time.
    """
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(*command, stdout=output, stderr=output)

    def is_ready() -> bool:
        said = log.read_text(errors="replace")
        assert process.returncode is None, f"{command[0]} ended at its start:\n{said}"
        return ready in said

    try:
        await eventually(is_ready, within=_START_S)
        yield process
    finally:
        await _end(process)


def module(name: str, *arguments: str | Path) -> tuple[str | Path, ...]:
    """The command that runs a Python module."""
    return (sys.executable, "-m", name, *arguments)


def own_child(word: str) -> int:
    """The pid of the one program that we started with `word` among its arguments."""
    (found,) = [p.pid for p in psutil.Process().children() if word in p.cmdline()]
    return found


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
    try:
        async with asyncio.timeout(_END_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
