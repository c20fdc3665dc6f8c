"""Work on the disk, beside the event loop."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from device_client.errors import StateUnusable

P = ParamSpec("P")
ResultT = TypeVar("ResultT")


async def on_disk(work: Callable[P, ResultT], *args: P.args, **options: P.kwargs) -> ResultT:
    """What the disk-bound `work` returns, without blocking the event loop meanwhile.

    Raises:
        StateUnusable: the disk is full or broken.
    """
    try:
        return await asyncio.to_thread(work, *args, **options)
    except OSError as error:
        raise StateUnusable(
            f"The state can't be read or written: {error}.",
            "Make room on the disk, and see that this user owns the state directory.",
        ) from error
