"""Whether a claim costs more in a fleet of a million than in one of a thousand."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from broker.composition.registries import open_registry
from tests.bench.bench import CLAIM, Bench, enroll
from tests.bench.claiming import claim_desk, parts
from tests.bench.devices import Device, make_devices
from tests.bench.measuring import Cost, least_disturbed, say
from tests.bench.registry_bench import _fill as fill
from tests.bench.report import Row, at_most
from tests.support.installation import Installation

_SMALL: Final = 1_000
_LARGE: Final = 1_000_000
_ROUNDS: Final = 5
_CLAIMS: Final = 1_000
_TO_HOLD: Final = 1.15


@dataclass(frozen=True)
class _Fleet:
    installation: Installation
    rounds: list[list[Device]]


async def measure(bench: Bench) -> list[Row]:
    """On SQLite; both services stay up, as they do in life, and their rounds take turns."""
    say(f"filling a registry with {_LARGE:,} devices")
    small, large = [await _fleet(bench, count) for count in (_SMALL, _LARGE)]
    on_small, on_large = [], []
    async with claim_desk(small.installation) as few_desk, claim_desk(large.installation) as desk:
        for number in range(_ROUNDS + 1):
            say(f"claims in a small and a large fleet, round {number} of {_ROUNDS}")
            on_small.append(await few_desk.claim_all(small.rounds[number]))
            on_large.append(await desk.claim_all(large.rounds[number]))
    return _compared(on_small[1:], on_large[1:])  # the first warms up


def _compared(on_small: Sequence[Cost], on_large: Sequence[Cost]) -> list[Row]:
    few, many = (least_disturbed(costs).cpu_ms for costs in (on_small, on_large))
    few_s, many_s = (max(cost.per_second for cost in costs) for costs in (on_small, on_large))
    return [
        at_most(
            f"cost of a claim with {_LARGE:,} devices registered, SQLite",
            f"{many:.3f} ms CPU against {few:.3f} with {_SMALL:,}: {many / few:.2f}x",
            many / few,
            _TO_HOLD,
            f"<= {_TO_HOLD:.2f}x",
        ),
        Row(
            "- of these, by the clock",
            f"{many_s:,.0f} claims/s against {few_s:,.0f}: {few_s / many_s:.2f}x",
            values={"ratio": few_s / many_s},
        ),
    ]


async def _fleet(bench: Bench, count: int) -> _Fleet:
    installation = await bench.installation(f"fleet-{count}")
    url = open_registry(installation.home, installation.settings).url
    await asyncio.to_thread(fill, url, count)
    devices = await asyncio.to_thread(make_devices, CLAIM, (_ROUNDS + 1) * _CLAIMS)
    await enroll(installation, devices)
    return _Fleet(installation, list(parts(devices, _CLAIMS)))
