"""Forks services: python -m tests.support.forker

Reads one JSON object a line, {"module": …, "arguments": […], "log": …, "environment": {…}}, runs
that module in a child as `python -m` does, and answers with {"pid": …} and, when it has ended, with
{"status": …}. What it writes goes to the log, or stderr to another file, "errors". All that a
service imports is imported once, here, which takes longer than most lives of a service that is
going to be killed.
"""

import json
import os
import runpy
import sys
from typing import Any


def become(order: dict[str, Any]) -> None:
    """The child; ends as the module does."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    for said, path in (1, order["log"]), (2, order.get("errors", order["log"])):
        log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, said)
        os.close(log)
    os.environ.clear()
    os.environ.update(order["environment"])
    sys.argv = [order["module"], *order["arguments"]]
    sys.modules.pop(order["module"], None)
    runpy.run_module(order["module"], run_name="__main__", alter_sys=True)


def answer(**what: int) -> None:
    print(json.dumps(what), flush=True)


def main() -> None:
    """Serves until the input ends."""
    # Whatever a service loads only when it runs.
    for name in (
        "broker.entry.cli.main",
        "broker.composition.app",
        "broker.adapters.brokers.embedded",
    ):
        __import__(name)
    with open(0, "rb", buffering=0) as orders:
        while line := orders.readline():
            pid = os.fork()
            if pid == 0:
                become(json.loads(line))
                return
            answer(pid=pid)
            _, status = os.waitpid(pid, 0)
            answer(status=os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    main()
