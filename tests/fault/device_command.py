"""`muster-device` as a process that kills itself at a step of its own."""

import asyncio
import os
import signal
import sys
from pathlib import Path

TIMEOUT_S = 90


async def run_dying_device(step: str, verb: str, *options: str | Path) -> tuple[int, str]:
    """`muster-device VERB` to its end; its exit status and what it printed. It dies at `step`, or
    counts its steps when that is `none:0`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.fault.dying_device", step, verb),
        *(*map(str, options), "--timeout", "60"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=os.environ,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            said, complained = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, -signal.SIGKILL), complained.decode()
    return process.returncode, said.decode()
