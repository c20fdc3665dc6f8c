"""Waiting for what can't be stopped."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

ResultT = TypeVar("ResultT")


async def to_its_end(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """What the work in a thread returns. Cancelled meanwhile, it's waited for all the same.

    A thread goes on when its caller is cancelled. If the caller left then, the next step could
    write the same file at the same time.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                continue
        if not task.cancelled():
            task.exception()  # the cancellation counts for more
        raise
