"""Running programs that the device's own configuration names; never one that a server names."""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

_MOST_OUTPUT: Final = 4096


class CommandFailed(Exception):
    """It couldn't be started, or said no by its exit status; the end of its output says why."""


class CommandTimedOut(CommandFailed):
    """It took longer than allowed, and was ended with all that it had started."""


@dataclass(frozen=True)
class Output:
    """What a program printed, errors too, cut to its last 4 KiB."""

    text: str


async def run(argv: Sequence[str], timeout_s: float) -> Output:
    """Runs the program without a shell, to its end; cancelled, it's ended as after a time-out.

    Raises:
        CommandFailed: it can't be started, or its status isn't 0.
        CommandTimedOut: it didn't end in time.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{argv[0]} can't be started: {error.strerror}.") from error
    try:
        async with asyncio.timeout(timeout_s):
            text = await _last_words(process)
            status = await process.wait()
    except TimeoutError as error:
        raise CommandTimedOut(f"{argv[0]} took longer than {timeout_s:g} s.") from error
    finally:
        await _end(process)
    if status != 0:
        raise CommandFailed(f"{argv[0]} ended with {status}: {text.strip()[-200:]}")
    return Output(text)


async def _last_words(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None, "it's a pipe"  # noqa: S101
    kept = b""
    while data := await process.stdout.read(_MOST_OUTPUT):
        kept = (kept + data)[-_MOST_OUTPUT:]
    return kept.decode("utf-8", "replace")


async def _end(process: asyncio.subprocess.Process) -> None:
    """Nothing of the program's session goes on."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
