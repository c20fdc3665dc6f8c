"""Tasks that a test starts, and ends whatever happens."""

import asyncio
from collections.abc import Coroutine
from typing import Any

_END_S = 60.0


class Background:
    """Owns tasks; `finish` waits for them and shows what they raised."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Runs `work` meanwhile."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        return task

    async def finish(self) -> None:
        """Waits for all tasks; cancels those that take too long.

        Raises:
            AssertionError: one took too long.
        """
        if not self._tasks:
            return
        done, late = await asyncio.wait(self._tasks, timeout=_END_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)
        for task in done:
            await task
        assert not late, f"{len(late)} tasks didn't end"
