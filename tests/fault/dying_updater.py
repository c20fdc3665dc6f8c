"""Updaters that kill themselves at a step: python -m tests.fault.dying_updater

Reads one JSON object a line, {"home": …, "kind": "file", "step": "fsync:3", "well": true}, forks a
device that does its update in `home`, and answers with how that ended: {"status": -9} or
{"status": 0, "seen": …}.
One process for all of them, because starting Python takes longer than an update. The steps are the
operating system's calls that change the disk; with `none:0` the device lives.
"""

import asyncio
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from device_client.update import commands
from device_client.update.codes import UpdateCode, UpdateRefused
from tests.support.slot_kinds import KINDS
from tests.support.update_repository import MadeRepository
from tests.support.updating import UpdatingDevice

DISK: Final = (
    *("mkdir", "write", "fsync", "replace", "rename"),
    *("symlink", "link", "unlink", "rmdir"),
)


class Death:
    """Counts the steps, and kills just before the one that was named."""

    def __init__(self, named: str) -> None:
        step, _, nth = named.partition(":")
        self._fatal = (step, int(nth))
        self.seen: Counter[str] = Counter()

    def wrap(self, name: str) -> None:
        """One function of `os`."""
        real: Callable[..., Any] = getattr(os, name)

        def wrapped(*args: Any, **options: Any) -> Any:
            self.seen[name] += 1
            if (name, self.seen[name]) == self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
            # A killed process loses nothing of what the system has taken; the power cuts are tried
            # elsewhere (tests/unit/device_client/update/test_power_cuts.py).
            return None if name == "fsync" else real(*args, **options)

        setattr(os, name, wrapped)


def update(made: MadeRepository, payload: bytes, order: dict[str, Any]) -> dict[str, Any]:
    """The update, from wherever the last death left it."""
    slots = KINDS[order["kind"]](Path(order["home"]))
    slots.go_on()
    commands.run = slots.run  # type: ignore[assignment]
    installer, restart = slots.installer(), slots.restart
    device = UpdatingDevice(slots.home, made, installer=installer, restart=restart)
    device.part = -(-len(slots.image) // 4)
    if not order["well"]:
        device.health.why = UpdateRefused(UpdateCode.HEALTH_FAILED, "it isn't well")
    asyncio.run(_live(device, payload))
    return {"counter": device.counter, "finals": device.finals()}


async def _live(device: UpdatingDevice, payload: bytes) -> None:
    await device.settled()
    await device.follow(payload)


def child(made: MadeRepository, payload: bytes, order: dict[str, Any], answer: int) -> None:
    """Never returns."""
    death = Death(order["step"])
    for name in DISK:
        death.wrap(name)
    try:
        result = update(made, payload, order)
        with os.fdopen(answer, "wb") as out:
            out.write(json.dumps({**result, "seen": death.seen}).encode())
    except BaseException as error:
        sys.stderr.write(f"{error!r}\n")
        os._exit(1)
    os._exit(0)


def perform(made: MadeRepository, payload: bytes, order: dict[str, Any]) -> dict[str, Any]:
    """One device's life, in a process of its own."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        child(made, payload, order, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        text = said.read()
    _, status = os.waitpid(pid, 0)
    return {"status": os.waitstatus_to_exitcode(status), **json.loads(text or b"{}")}


def main() -> None:
    """Serves until the input ends."""
    repositories = {}
    for name, kind in KINDS.items():
        made = MadeRepository()
        target = made.add(kind.path, kind.image)
        made.publish()
        repositories[name] = (made, made.assign(target))
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(perform(*repositories[order["kind"]], order)), flush=True)


if __name__ == "__main__":
    main()
