"""Chores: due every so often, and at once when somebody has made work for them."""

import asyncio
from collections.abc import Awaitable, Callable

from broker.entry.housekeeping import Chore
from tests.support.waiting import eventually


async def kept_doing(chore: Chore, check: Callable[[], Awaitable[None]]) -> None:
    """The chore runs while `check` does."""
    running = asyncio.create_task(chore.keep_doing())
    try:
        await check()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_chore_that_is_woken_doesn_t_wait_for_its_time() -> None:
    wake, done = asyncio.Event(), 0

    async def work() -> None:
        nonlocal done
        done += 1

    async def check() -> None:
        for expected in (1, 2, 3):
            await eventually(lambda expected=expected: done == expected)  # type: ignore[misc]
            wake.set()

    await kept_doing(Chore("test", 3600.0, work, wake=wake), check)


async def test_what_is_asked_for_while_it_works_is_done_afterwards() -> None:
    wake, begun, go_on = asyncio.Event(), asyncio.Event(), asyncio.Event()
    done = 0

    async def work() -> None:
        nonlocal done
        begun.set()
        await go_on.wait()
        done += 1

    async def check() -> None:
        await begun.wait()
        wake.set()
        go_on.set()
        await eventually(lambda: done == 2)

    await kept_doing(Chore("test", 3600.0, work, wake=wake), check)


async def test_a_chore_that_fails_isn_t_driven_by_who_wakes_it() -> None:
    wake, tries = asyncio.Event(), 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        raise OSError("the broker is away")

    async def check() -> None:
        wake.set()
        await eventually(lambda: tries == 1)
        for _ in range(100):
            wake.set()
            await asyncio.sleep(0)
        assert tries == 1

    await kept_doing(Chore("test", 3600.0, work, wake=wake), check)
