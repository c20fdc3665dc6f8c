"""`python -m tests.bench.load PLAN`: devices that become members, as fast as brokers and service
let them. Says `ready`, waits for a line on stdin, and ends with its result on stdout."""

import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.bench.load.device import Site, become_member
from tests.bench.load.plan import PlannedDevice, Result, read_plan, write_result


class _Load:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._failures: list[str] = []
        self._latencies_s: list[float] = []

    async def run(self, devices: Sequence[PlannedDevice]) -> Result:
        waiting = iter(devices)
        cpu = time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(self._site.plan.concurrent):
                tasks.create_task(self._provision(waiting))
        return Result(self._failures, self._latencies_s, time.process_time() - cpu)

    async def _provision(self, waiting: Iterator[PlannedDevice]) -> None:
        for device in waiting:
            began = time.monotonic()
            try:
                await become_member(self._site, device)
            except Exception as error:
                self._failures.append(f"{device.client_id}: {error!r}")
            else:
                self._latencies_s.append(time.monotonic() - began)


async def _run(site: Site) -> Result:
    plan = site.plan
    await _Load(site).run(plan.devices[: plan.warm_up])
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    return await _Load(site).run(plan.devices[plan.warm_up :])


def main() -> None:
    """One load."""
    plan = read_plan(Path(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="muster-load-") as folder:
        result = asyncio.run(_run(Site.of(plan, Path(folder))))
    sys.stdout.buffer.write(write_result(result))


if __name__ == "__main__":
    main()
