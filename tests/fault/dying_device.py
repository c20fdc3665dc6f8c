"""`muster-device` that kills itself at a step: python -m tests.fault.dying_device STEP:NTH claim …

The steps are the calls of the operating system that change its disk, and what it says and hears.
With `none:0` it lives, and prints how many of each step there were.
"""

import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from device_client import cli
from device_client.transport import Connection
from device_client.watching import Watch

DISK: Final = ("mkdir", "write", "fsync", "replace", "rename", "symlink", "unlink", "rmdir")
NETWORK: Final = ((Connection, "subscribe"), (Connection, "publish"), (Watch, "next"))


class Death:
    """Counts the steps, and kills just before the one that was named."""

    def __init__(self, named: str) -> None:
        step, _, nth = named.partition(":")
        self._fatal = (step, int(nth))
        self.seen: Counter[str] = Counter()

    def step(self, name: str) -> None:
        """This step is about to be done."""
        self.seen[name] += 1
        if (name, self.seen[name]) == self._fatal:
            os.kill(os.getpid(), signal.SIGKILL)


def wrap_disk(death: Death, name: str) -> None:
    """One function of `os`."""
    real: Callable[..., Any] = getattr(os, name)

    def wrapped(*args: Any, **options: Any) -> Any:
        death.step(name)
        return real(*args, **options)

    setattr(os, name, wrapped)


def wrap_network(death: Death, kind: type[Any], name: str) -> None:
    """One method of a connection; killed before and after are the same but for the next step."""
    real = getattr(kind, name)

    async def wrapped(self: Any, *args: Any) -> Any:
        death.step(f"{name}-before")
        result = await real(self, *args)
        death.step(f"{name}-after")
        return result

    setattr(kind, name, wrapped)


def run() -> int:
    """Wraps, then does what `muster-device` does."""
    death = Death(sys.argv.pop(1))
    for name in DISK:
        wrap_disk(death, name)
    for kind, name in NETWORK:
        wrap_network(death, kind, name)
    status = cli.main(sys.argv[1:])
    print(json.dumps(death.seen))
    return status


if __name__ == "__main__":
    sys.exit(run())
