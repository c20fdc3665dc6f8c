"""Waiting for something to become true, with a deadline instead of a sleep."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable

_PAUSE_S = 0.01


async def eventually(predicate: Callable[[], bool | Awaitable[bool]], within: float = 60.0) -> None:
    """Returns as soon as `predicate` (a function or a coroutine function) is true.

    Raises:
        AssertionError: it isn't within so many seconds.
    """
    try:
        async with asyncio.timeout(within):
            while not await _ask(predicate):
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        name = getattr(predicate, "__qualname__", repr(predicate))
        raise AssertionError(f"{name} didn't become true within {within:g} s") from None


async def _ask(predicate: Callable[[], bool | Awaitable[bool]]) -> bool:
    answer = predicate()
    if inspect.isawaitable(answer):
        return await answer
    return answer
