"""A writer that is killed leaves whole transactions, and all that it was told are durable."""

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.adapters.registry import SqlRegistry
from broker.ports.registry import DeviceFilter, EventFilter, ReadTransaction
from tests.support.records import a_claim_certificate, a_group
from tests.support.registries import add_batch, device_number

_ROUNDS = 3
_PER_ROUND = 10_000
_ALL = 100_000


@asynccontextmanager
async def writing_process(url: str, first: int) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that adds members `first`, `first + 1`, …; killed at the end of the block."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.contract.registry.writing_process",
        env={**os.environ, "REGISTRY_URL": url, "FIRST": str(first)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told_until_killed(url: str, first: int) -> list[int]:
    """The members that the process was told are durable; it's killed amid its work."""
    async with writing_process(url, first) as process:
        assert process.stdout
        wanted = random.randint(50, 300)
        lines = [await process.stdout.readline() for _ in range(wanted)]
        assert all(lines), "the writing process ended by itself"
        process.kill()
        lines += (await process.stdout.read()).splitlines(keepends=True)
    # The last line may have been cut off; its member is durable, its number isn't known.
    return [int(line) for line in lines if line.endswith(b"\n")]


def look(tx: ReadTransaction) -> tuple[set[str], ...]:
    """The devices that each kind of record speaks of."""
    devices = {device.id for device in tx.devices(DeviceFilter(limit=_ALL))}
    certificates = {c.device_id for c in tx.certificates_of(sorted(devices))}
    events = [event.device_id or "" for event in tx.events(EventFilter(limit=_ALL))]
    replies = {device_number(int(reply.id)).id for reply in tx.pending_replies(_ALL)}
    assert len(events) == len(set(events))
    return {*devices}, {*certificates}, set(events), {*replies}


async def test_a_killed_writer_leaves_only_whole_transactions(url: str) -> None:
    async with SqlRegistry(url) as registry:
        await registry.write(add_batch)
    told: list[int] = []
    for round_number in range(_ROUNDS):
        told += await told_until_killed(url, round_number * _PER_ROUND)
        async with SqlRegistry(url) as registry:
            # Waits for what the server still ends for the killed client.
            await registry.write(lambda tx: tx.raise_counter("rounds"))
            devices, certificates, events, replies = await registry.read(look)
            (group,) = await registry.read(lambda tx: tx.groups())
            (claim,) = await registry.read(lambda tx: tx.claim_certificates())
        assert devices == certificates == events == replies
        assert group == a_group(devices=len(devices))
        assert claim == a_claim_certificate(claims=len(devices))
        assert {device_number(number).id for number in told} <= devices
