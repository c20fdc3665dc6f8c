"""What a claim costs the service: policy, CSR check, certificate, durable commit, audit, outbox."""

import asyncio
import itertools
from typing import Final

from tests.bench.bench import CLAIM, UNLIMITED, Bench, enroll
from tests.bench.claiming import CONCURRENT, claim_desk, parts
from tests.bench.devices import make_devices
from tests.bench.measuring import Cost, CpuMark, least_disturbed, middle, say
from tests.bench.report import Row, at_least
from tests.support.installation import Installation
from tests.support.postgres import postgres_cluster

_ROUNDS: Final = 3
_CLAIMS: Final = 1_700
_WARM_UP: Final = 300
_TO_HOLD: Final = 1_000
_numbers = itertools.count(1)


async def measure(bench: Bench) -> list[Row]:
    """On both databases."""
    return [await _on_sqlite(bench), await _on_postgresql(bench)]


async def sqlite_cost(bench: Bench) -> Cost:
    """The cost on SQLite, as it is now."""
    say(f"service cost on SQLite: {_ROUNDS} rounds of {_CLAIMS} claims")
    installation = await bench.installation(f"cost-sqlite-{next(_numbers)}")
    return least_disturbed([own for own, _ in await _rounds(installation)])


async def _on_sqlite(bench: Bench) -> Row:
    cost = await sqlite_cost(bench)
    return _row("SQLite, synchronous=FULL", cost, f"{cost.cpu_ms:.2f} ms CPU each")


async def _on_postgresql(bench: Bench) -> Row:
    say(f"service cost on PostgreSQL: {_ROUNDS} rounds of {_CLAIMS} claims")
    with postgres_cluster() as server:
        settings = f'[registry]\nurl = "{server.new_database()}"\n{UNLIMITED}'
        installation = await bench.installation("cost-postgresql", settings)
        rounds = await _rounds(installation)
    cost = least_disturbed([own for own, _ in rounds])
    server_ms = middle(1000 * used / own.count for own, used in rounds)
    more = f"{cost.cpu_ms:.2f} ms CPU each, and the server's {server_ms:.2f} ms"
    return _row("PostgreSQL", cost, more)


async def _rounds(installation: Installation) -> list[tuple[Cost, float]]:
    """The service's cost in each round, and the CPU seconds of our child processes: a server's."""
    devices = await asyncio.to_thread(make_devices, CLAIM, _WARM_UP + _ROUNDS * _CLAIMS)
    await enroll(installation, devices)
    found = []
    async with claim_desk(installation) as desk:
        await desk.claim_all(devices[:_WARM_UP])
        for part in parts(devices[_WARM_UP:], _CLAIMS):
            mark = CpuMark.of_children()
            found.append((await desk.claim_all(part), mark.since()))
    return found


def _row(database: str, cost: Cost, more: str) -> Row:
    return at_least(
        f"service cost of a claim, {database} ({CONCURRENT} concurrent)",
        f"{cost.per_cpu_second:,.0f} claims/CPU-s, {cost.per_second:,.0f} claims/s ({more})",
        cost.per_cpu_second,
        _TO_HOLD,
        f">= {_TO_HOLD:,} claims/CPU-s",
    )
