"""Devices that become members through real brokers, against the same traffic without a service."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from broker.protocol.messages import Endpoint
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.bench.bench import CLAIM, MANY, Bench
from tests.bench.canned import canned_answers
from tests.bench.devices import Device, make_devices
from tests.bench.load.generators import generators, planned
from tests.bench.load.plan import Plan as LoadPlan
from tests.bench.measuring import Cost, CpuMark, middle, percentile, say
from tests.bench.noop import READY, NoopPlan
from tests.bench.processes import module, own_child, running
from tests.bench.report import Row, at_least
from tests.support.stack import Plan, Stack, prepared_stack

_ROUNDS: Final = 5
_DEVICES: Final = 300
_EMBEDDED_DEVICES: Final = 200
_WARM_UP: Final = 20
_CONCURRENT: Final = 32
_TO_HOLD: Final = 0.85
_LIMITS: Final[dict[str, str | float]] = {"claims_per_second": 1e6, "claims_burst": 1_000_000}


@dataclass(frozen=True)
class Round:
    """One load: `cpu_s` of the cost is the answering process's."""

    cost: Cost
    brokers_ms: float
    """CPU milliseconds of both brokers for each device."""
    devices_ms: float
    """CPU milliseconds of the load generators for each device."""
    latencies_s: list[float]

    @property
    def total_ms(self) -> float:
        """CPU milliseconds of everything for each device."""
        return self.cost.cpu_ms + self.brokers_ms + self.devices_ms


async def measure(bench: Bench) -> list[Row]:
    """On Mosquitto: rounds with the service and rounds with the no-op responder take turns."""
    plan = Plan(brokers=BrokerKind.MOSQUITTO, in_process=False, limits=_LIMITS)
    place = bench.place("mosquitto")
    served, noop = [], []
    async with prepared_stack(place, plan) as stack:
        await _open_to_all(stack)
        for number in range(1, _ROUNDS + 1):
            say(f"end to end on Mosquitto, round {number} of {_ROUNDS}")
            served.append(await _with_service(stack, place, _DEVICES))
            noop.append(await _with_noop(stack, place, number))
    return [
        _ratio(served, noop),
        _ratio_by_cpu(served, noop),
        _cpu("service", served),
        _cpu("no-op responder", noop),
    ]


async def measure_embedded(bench: Bench) -> list[Row]:
    """On the embedded brokers, which run in the service's process."""
    say("end to end on the embedded brokers")
    place = bench.place("embedded")
    async with prepared_stack(place, Plan(in_process=False, limits=_LIMITS)) as stack:
        await _open_to_all(stack)
        result = await _with_service(stack, place, _EMBEDDED_DEVICES)
    figure = f"{result.cost.per_second:,.0f} claims/s; {_shares([result])}; {_latency([result])}"
    values = {"per_s": result.cost.per_second, "service_ms": result.cost.cpu_ms}
    return [Row("claims end to end, embedded brokers in the service", figure, values=values)]


async def _open_to_all(stack: Stack) -> None:
    await stack.installation.add_claim_certificate(CLAIM, max_claims=MANY)
    await stack.installation.save_group(quota=MANY)


async def _with_service(stack: Stack, place: Path, count: int) -> Round:
    devices = await asyncio.to_thread(make_devices, CLAIM, _WARM_UP + count)
    await stack.installation.enroll([device.request.serial for device in devices])
    await stack.start_service()
    try:
        return await _load(stack, place, devices, own_child("up"))
    finally:
        await stack.stop_service()


async def _with_noop(stack: Stack, place: Path, number: int) -> Round:
    devices = await asyncio.to_thread(make_devices, CLAIM, _WARM_UP + _DEVICES)
    fleet = Endpoint(host="localhost", port=stack.ports[Zone.FLEET])
    answers = await asyncio.to_thread(canned_answers, stack.home, fleet, devices)
    plan = NoopPlan(str(stack.home.path), stack.service_ports, answers)
    path = place / f"noop-{number}.json"
    path.write_bytes(msgspec.json.encode(plan))
    log = place / f"noop-{number}.log"
    async with running(*module("tests.bench.noop", path), log=log, ready=READY) as process:
        return await _load(stack, place, devices, process.pid)


async def _load(stack: Stack, place: Path, devices: Sequence[Device], answering: int) -> Round:
    claim = stack.claim_client(CLAIM)
    plan = LoadPlan(
        claim_port=stack.ports[Zone.CLAIM],
        fleet_port=stack.ports[Zone.FLEET],
        anchors=claim.anchors,
        claim_certificate=claim.certificate,
        claim_key=claim.key,
        concurrent=_CONCURRENT,
        warm_up=_WARM_UP,
        devices=planned(devices),
    )
    async with generators(place, plan) as ready:
        service = CpuMark.now([answering])
        brokers = CpuMark.now([broker.pid for broker in stack.brokers.values()])
        began = asyncio.get_running_loop().time()
        result = await ready.run()
        elapsed = asyncio.get_running_loop().time() - began
        count = len(result.latencies_s)
        return Round(
            Cost(count, elapsed, service.since()),
            1000 * brokers.since() / count,
            1000 * result.cpu_s / count,
            result.latencies_s,
        )


def _ratio(served: Sequence[Round], noop: Sequence[Round]) -> Row:
    own = middle(each.cost.per_second for each in served)
    bare = middle(each.cost.per_second for each in noop)
    return at_least(
        f"claims end to end, Mosquitto, {_CONCURRENT} at a time, both TLS connects",
        f"{own:,.0f} claims/s, no-op responder {bare:,.0f}/s: {own / bare:.0%}",
        own / bare,
        _TO_HOLD,
        f">= {_TO_HOLD:.0%} of the no-op responder's",
    )


def _ratio_by_cpu(served: Sequence[Round], noop: Sequence[Round]) -> Row:
    """What the ratio is on a machine that does nothing else: other programs' load takes time from
    both, and CPU time from the caches; the round that it disturbed least says most."""
    own, bare = (min(each.total_ms for each in rounds) for rounds in (served, noop))
    figure = f"{own:.2f} ms CPU of all processes each, no-op responder {bare:.2f}: {bare / own:.0%}"
    return Row("- the same by CPU time, best rounds", figure, values={"ratio": bare / own})


def _cpu(name: str, rounds: Sequence[Round]) -> Row:
    values = {
        "answering_ms": middle(each.cost.cpu_ms for each in rounds),
        "brokers_ms": middle(each.brokers_ms for each in rounds),
        "devices_ms": middle(each.devices_ms for each in rounds),
    }
    figure = f"{_shares(rounds)}; {_latency(rounds)}"
    return Row(f"- of these, CPU and latency with the {name}", figure, values=values)


def _shares(rounds: Sequence[Round]) -> str:
    answering = middle(each.cost.cpu_ms for each in rounds)
    brokers = middle(each.brokers_ms for each in rounds)
    devices = middle(each.devices_ms for each in rounds)
    return f"CPU ms each: answering {answering:.2f}, brokers {brokers:.2f}, devices {devices:.2f}"


def _latency(rounds: Sequence[Round]) -> str:
    latencies = [value for each in rounds for value in each.latencies_s]
    p50, p99 = (1000 * percentile(latencies, part) for part in (0.5, 0.99))
    return f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
