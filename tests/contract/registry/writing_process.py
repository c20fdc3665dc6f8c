"""A process that adds members until it is killed, run with `python -m`.

The registry's URL comes in the environment as REGISTRY_URL, the first number as FIRST. Each number
is printed once its member is durable.
"""

import asyncio
import itertools
import os
from functools import partial

from broker.adapters.registry import SqlRegistry
from broker.ports.registry import WriteTransaction
from tests.support.registries import add_member

_WRITERS = 20


async def main() -> None:
    """Writes for ever."""
    numbers = itertools.count(int(os.environ["FIRST"]))
    async with SqlRegistry(os.environ["REGISTRY_URL"]) as registry, asyncio.TaskGroup() as tasks:
        for _ in range(_WRITERS):
            tasks.create_task(_write(registry, numbers))


async def _write(registry: SqlRegistry, numbers: "itertools.count[int]") -> None:
    for number in numbers:
        await registry.write(partial(_add, number))
        print(number, flush=True)


def _add(number: int, tx: WriteTransaction) -> None:
    add_member(tx, number)


if __name__ == "__main__":
    asyncio.run(main())
