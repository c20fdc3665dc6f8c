"""Processes that are killed just before one of their calls to the system."""

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any


def die_before(step: int, names: Sequence[str]) -> None:
    """This process is killed instead of its `step`-th call to the `names` of `os`."""
    left = [step]

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **options)

        return call

    for name in names:
        setattr(os, name, counted(getattr(os, name)))


def at_every_step(
    names: Sequence[str],
    act: Callable[[int], object],
    prepare: Callable[[int], object] = lambda _: None,
) -> int:
    """Forks a child for each step of `act`, killed just before it; how many steps there are.

    `prepare` runs before, in a process that stays alive. Both get the step's number.
    """
    step = 1
    while True:
        prepare(step)
        child = os.fork()
        if child == 0:
            die_before(step, names)
            act(step)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            assert os.waitstatus_to_exitcode(status) == 0
            return step - 1
        step += 1
