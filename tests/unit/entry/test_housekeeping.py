"""Chores: due every so often, and at once when somebody has made work for them."""

import asyncio
import threading
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from broker.entry.changes import Changes
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


async def test_who_is_woken_all_the_time_rests_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    wake, done = asyncio.Event(), 0
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def work() -> None:
        nonlocal done
        done += 1
        wake.set()

    async def check() -> None:
        while done < 3:
            await sleep(0)

    monkeypatch.setattr("broker.entry.housekeeping.asyncio.sleep", noted)
    await kept_doing(Chore("test", 3600.0, work, wake=wake, least_s=0.2), check)
    assert set(pauses) == {0.2}


async def test_who_has_more_to_do_goes_on_unwoken() -> None:
    done = 0

    async def work() -> bool:
        nonlocal done
        done += 1
        return done < 3

    async def check() -> None:
        await eventually(lambda: done == 3)

    await kept_doing(Chore("test", 3600.0, work, says_more=True, least_s=0.01), check)
    assert done == 3


async def test_true_means_more_only_where_it_was_said() -> None:
    done = 0

    async def work() -> bool:
        nonlocal done
        done += 1
        return True

    async def check() -> None:
        for _ in range(100):
            await asyncio.sleep(0)
        assert done == 1

    await kept_doing(Chore("test", 3600.0, work, wake=asyncio.Event()), check)


class Explained(Exception):
    """As Muster's own are."""

    remedy = "Start it."


@pytest.mark.parametrize(
    ("error", "told", "remedy", "is_traced"),
    [
        (TimeoutError(), "TimeoutError()", None, True),
        (KeyError("device"), "'device'", None, True),
        (Explained("The broker is away."), "The broker is away.", "Start it.", False),
    ],
)
async def test_a_failure_is_told_so_that_somebody_can_mend_it(
    error: Exception, told: str, remedy: str | None, is_traced: bool
) -> None:
    async def work() -> None:
        raise error

    async def check() -> None:
        await eventually(lambda: bool(logs))

    with capture_logs() as logs:
        await kept_doing(Chore("test", 3600.0, work), check)
    (line,) = logs
    assert (line["error"], line["remedy"]) == (told, remedy)
    assert (line["exc_info"] is error) is is_traced


async def woken(changes: Changes, *wakes: asyncio.Event) -> None:
    """Each of them, once more."""
    async with asyncio.timeout(60):
        for wake in wakes:
            await wake.wait()
            wake.clear()


async def test_changes_wake_everybody_and_quiet_wakes_nobody() -> None:
    state, looks = 1, 0

    def look() -> int:
        nonlocal looks
        looks += 1
        return state

    changes = Changes(look)
    first, second = changes.wake(), changes.wake()
    looking = asyncio.create_task(changes.keep_looking())
    await woken(changes, first, second)
    seen = looks
    await eventually(lambda: looks > seen + 2)
    assert not first.is_set()
    state = 2
    await woken(changes, first, second)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_who_can_t_see_wakes_everybody_so_that_each_finds_out() -> None:
    def look() -> int:
        raise OSError("away")

    changes = Changes(look)
    wake = changes.wake()
    looking = asyncio.create_task(changes.keep_looking())
    await woken(changes, wake)
    await woken(changes, wake)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


async def test_who_rings_is_heard_before_it_is_time() -> None:
    state, bell = 1, threading.Event()

    def rest(_: float) -> None:
        assert bell.wait(60), "nobody rang"
        bell.clear()

    changes = Changes(lambda: state, rest)
    wake = changes.wake()
    looking = asyncio.create_task(changes.keep_looking())
    await woken(changes, wake)
    state = 2
    bell.set()
    await woken(changes, wake)
    looking.cancel()
    bell.set()
    await asyncio.gather(looking, return_exceptions=True)
