"""Several load generators at once, since one can't keep two cores busy."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from broker.protocol import codec
from broker.protocol.topics import Operation, claim_topic
from tests.bench.devices import Device
from tests.bench.load.plan import Plan, PlannedDevice, Result, read_result, write_plan
from tests.bench.processes import module

_GENERATORS: Final = 2
_WITHIN_S: Final = 120.0
_LINE: Final = 2**24
_numbers = itertools.count(1)


class Generators:
    """Processes that have warmed up and wait for the word."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process]) -> None:
        self._processes = processes

    async def run(self) -> Result:
        """Lets all begin at once; returns when the last has ended.

        Raises:
            AssertionError: a device didn't become a member.
        """
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(b"\n")
        async with asyncio.timeout(_WITHIN_S):
            results = await asyncio.gather(*map(_result_of, self._processes))
        failures = [text for result in results for text in result.failures]
        assert not failures, "\n".join([f"{len(failures)} devices failed", *failures[:3]])
        latencies = [value for result in results for value in result.latencies_s]
        return Result(failures, latencies, sum(result.cpu_s for result in results))


@asynccontextmanager
async def generators(place: Path, plan: Plan) -> AsyncIterator[Generators]:
    """The plan's devices, warm-up and concurrency split among the generators."""
    async with AsyncExitStack() as ending:
        processes = []
        for part in _split(plan):
            path = place / f"load-{next(_numbers)}.json"
            await asyncio.to_thread(write_plan, path, part)
            process = await asyncio.create_subprocess_exec(
                *module("tests.bench.load", path),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=_LINE,
            )
            ending.push_async_callback(_end, process)
            processes.append(process)
        async with asyncio.timeout(_WITHIN_S):
            for process in processes:
                assert await _line_of(process) == b"ready\n", "a load generator failed"
        yield Generators(processes)


def planned(devices: Sequence[Device]) -> list[PlannedDevice]:
    """The devices as the generator needs them."""
    return [
        PlannedDevice(
            client_id=device.origin.client_id,
            topic=claim_topic(device.origin, Operation.ENROLL),
            payload=codec.encode(device.request),
            key=device.key_pem,
        )
        for device in devices
    ]


def _split(plan: Plan) -> list[Plan]:
    return [
        replace(
            plan,
            devices=plan.devices[number::_GENERATORS],
            concurrent=plan.concurrent // _GENERATORS,
            warm_up=plan.warm_up // _GENERATORS,
        )
        for number in range(_GENERATORS)
    ]


async def _result_of(process: asyncio.subprocess.Process) -> Result:
    return read_result(await _line_of(process))


async def _line_of(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    return await process.stdout.readline()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await process.wait()
