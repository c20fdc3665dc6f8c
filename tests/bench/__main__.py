"""`python -m tests.bench`: measures everything once and prints one table."""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

from tests.bench import (
    agent,
    end_to_end,
    fleet_size,
    lock_out,
    machine,
    raw_rates,
    rotation_herd,
    service_cost,
    step_ca,
    update_notice,
)
from tests.bench.bench import Bench
from tests.bench.measuring import say
from tests.bench.report import Row, as_json, as_table

MEASUREMENTS: Final[dict[str, Callable[[Bench], Awaitable[list[Row]]]]] = {
    "raw": raw_rates.measure,
    "service": service_cost.measure,
    "step-ca": step_ca.measure,
    "fleet-size": fleet_size.measure,
    "end-to-end": end_to_end.measure,
    "embedded": end_to_end.measure_embedded,
    "agent": agent.measure,
    "lock-out": lock_out.measure,
    "update-notice": update_notice.measure,
    "rotation-herd": rotation_herd.measure,
}

_QUIET: Final = 0.1
"""How busy a machine may be on which figures by the clock mean something."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table to stdout. What falls short is a finding, not a failure."""
    options = _parser().parse_args(arguments)
    busy = machine.others_load()
    if busy > _QUIET:
        say(
            f"other programs keep this machine {busy:.0%} busy: figures will be worse than they are"
        )
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        bench = Bench(Path(folder), step_ca=options.with_step_ca)
        rows = asyncio.run(_measure(bench, options.only or list(MEASUREMENTS)))
    say(f"done in {time.monotonic() - began:.0f} s")
    described = machine.describe() | {"busy before": f"{busy:.0%}"}
    if options.json:
        print(as_json(described, rows))
    else:
        print("\n".join(f"{name}: {value}" for name, value in described.items()))
        print(f"\n{as_table(rows)}")
    return 0


async def _measure(bench: Bench, names: Sequence[str]) -> list[Row]:
    return [row for name in names for row in await MEASUREMENTS[name](bench)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description="Measure Muster; on a quiet machine."
    )
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument(
        "--only",
        action="append",
        choices=list(MEASUREMENTS),
        metavar="NAME",
        help=f"measure only this (may be repeated): {', '.join(MEASUREMENTS)}",
    )
    parser.add_argument(
        "--with-step-ca",
        type=Path,
        metavar="PATH",
        help="the step-ca program, to measure it side by side",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
