"""step-ca, a well-known CA server with a database, under the same load side by side."""

import asyncio
import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.bench.bench import CLAIM, Bench
from tests.bench.claiming import CONCURRENT
from tests.bench.devices import Device, make_devices
from tests.bench.measuring import Cost, CpuMark, least_disturbed, say
from tests.bench.processes import running
from tests.bench.report import Row, at_least, not_measured
from tests.bench.service_cost import sqlite_cost
from tests.bench.signing_client import SigningClient
from tests.bench.tokens import Provisioner
from tests.support.pki import Authority
from tests.support.ports import free_port

_WHAT: Final = "service cost of a claim against step-ca's of a certificate"
_TO_HOLD: Final = 3.0
_BOUND: Final = ">= 3x certificates per CPU-second"
_FOR_S: Final = 4.0
_REQUESTS: Final = 6_000
_ROUNDS: Final = 2
_DATABASES: Final = ("badgerv2", "bbolt")
"""The first is what its own set-up chooses."""
_numbers = itertools.count(1)


async def measure(bench: Bench) -> list[Row]:
    """With each of its embedded databases; the better one counts.

    All take turns, and of each the round counts that other programs have disturbed least.
    """
    if bench.step_ca is None:
        return [not_measured(_WHAT, "no step-ca binary given (--with-step-ca PATH)", _BOUND)]
    own: list[Cost] = []
    theirs: dict[str, list[Cost]] = {database: [] for database in _DATABASES}
    for _ in range(_ROUNDS):
        for database, costs in theirs.items():
            costs.append(await _cost(bench, bench.step_ca, database))
        own.append(await sqlite_cost(bench))
    best = {database: least_disturbed(costs) for database, costs in theirs.items()}
    return _compared(least_disturbed(own), best)


def _compared(own: Cost, theirs: dict[str, Cost]) -> list[Row]:
    best = max(cost.per_cpu_second for cost in theirs.values())
    ratio = own.per_cpu_second / best
    figure = f"{own.per_cpu_second:,.0f} claims/CPU-s against {best:,.0f}: {ratio:.1f}x"
    rows = [_row(database, cost, own) for database, cost in theirs.items()]
    return [at_least(_WHAT, figure, ratio, _TO_HOLD, _BOUND), *rows]


def _row(database: str, theirs: Cost, own: Cost) -> Row:
    ratio = own.per_cpu_second / theirs.per_cpu_second
    rates = f"{theirs.per_cpu_second:,.0f} certificates/CPU-s, {theirs.per_second:,.0f}/s"
    values = {"per_cpu_s": theirs.per_cpu_second, "per_s": theirs.per_second, "ratio": ratio}
    return Row(f"- of these, step-ca with {database}", f"{rates}: {ratio:.1f}x", values=values)


async def _cost(bench: Bench, program: Path, database: str) -> Cost:
    say(f"step-ca with {database}, {CONCURRENT} concurrent")
    place = bench.place(f"step-ca-{next(_numbers)}")
    provisioner, port = Provisioner(), free_port()
    configuration = await asyncio.to_thread(_configure, place, port, provisioner, database)
    devices = await asyncio.to_thread(make_devices, CLAIM, _REQUESTS)
    log = place / "log"
    async with running(program, configuration, log=log, ready="Serving HTTPS") as server:
        # Only now: it refuses tokens that are older than itself.
        bodies = await asyncio.to_thread(_bodies, devices, provisioner)
        clients = [SigningClient(port, place / "root.crt") for _ in range(CONCURRENT)]
        try:
            for client in clients:
                await client.connect()
            return await _load(clients, bodies, server.pid)
        finally:
            for client in clients:
                client.close()


async def _load(clients: Sequence[SigningClient], bodies: Sequence[bytes], server: int) -> Cost:
    """For a fixed time, after every client has had one certificate."""
    waiting = iter(bodies)
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(client.sign(next(waiting)))
    loop = asyncio.get_running_loop()
    mark, began = CpuMark.now([server]), loop.time()
    async with asyncio.TaskGroup() as tasks:
        signing = [
            tasks.create_task(_sign_until(client, waiting, began + _FOR_S)) for client in clients
        ]
    return Cost(sum(task.result() for task in signing), loop.time() - began, mark.since())


async def _sign_until(client: SigningClient, waiting: Iterator[bytes], deadline: float) -> int:
    count = 0
    with suppress(StopIteration):
        while asyncio.get_running_loop().time() < deadline:
            await client.sign(next(waiting))
            count += 1
    return count


def _bodies(devices: Sequence[Device], provisioner: Provisioner) -> list[bytes]:
    return [
        json.dumps(
            {"csr": device.request.csr, "ott": provisioner.token(device.request.serial)}
        ).encode()
        for device in devices
    ]


def _configure(place: Path, port: int, provisioner: Provisioner, database: str) -> Path:
    """What `step ca init` makes without its questions: root, intermediate, one provisioner."""
    root = Authority("Bench Root CA", path_length=1)
    intermediate = Authority("Bench Intermediate CA", 0, parent=root)
    for name, authority in (("root", root), ("intermediate", intermediate)):
        (place / f"{name}.crt").write_bytes(authority.certificate.public_bytes(Encoding.PEM))
    key = place / "intermediate.key"
    key.touch(0o600)
    key.write_bytes(
        intermediate.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    configuration = place / "ca.json"
    text = {
        "root": str(place / "root.crt"),
        "crt": str(place / "intermediate.crt"),
        "key": str(key),
        "address": f"127.0.0.1:{port}",
        "dnsNames": ["localhost"],
        "db": {"type": database, "dataSource": str(place / "db")},
        "authority": {"provisioners": [provisioner.public()]},
    }
    configuration.write_text(json.dumps(text))
    return configuration
