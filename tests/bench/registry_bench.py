"""What a claim costs the registry: `python -m tests.bench.registry_bench`.

Each claim is what the service does in its transaction, without policy and signature: the context,
a check of the name, device, certificate, counts, event and reply; the replies of a round are
removed as they are once published. CPU is the process's own, and for PostgreSQL the server's too.
Takes about two minutes.
"""

import argparse
import asyncio
import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
import sqlalchemy as sa

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.engine import writing_engine
from broker.adapters.registry.migrate import migrate
from broker.core.records import Event, EventKind, Reply
from broker.ports.registry import WriteTransaction
from broker.protocol.names import CertificateSerial, DeviceId, SerialNumber
from broker.protocol.zones import Zone
from tests.support.postgres import postgres_cluster
from tests.support.records import (
    NOW,
    a_certificate,
    a_claim_certificate,
    a_device,
    a_fingerprint,
    a_group,
)

_PEM: Final = "-----BEGIN CERTIFICATE-----\n" + "M" * 820 + "\n-----END CERTIFICATE-----\n"
_PAYLOAD: Final = b"x" * 3500
_TOGETHER: Final = 256
_ROUNDS: Final = 5
_SPREAD: Final = 2**60
"""Fillers' keys are spread over this space, so that new random keys fall between them."""

_FILL_SQLITE: Final = """
WITH RECURSIVE filler(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM filler WHERE n + 1 < :count),
named AS (SELECT n, printf('%015x', n * (:spread / :count)) AS name FROM filler)
"""
_FILL_POSTGRESQL: Final = """
WITH named AS (
  SELECT n, lpad(to_hex(n * (:spread / :count)), 15, '0') AS name
  FROM generate_series(0, CAST(:count AS bigint) - 1) AS n
)
"""
_FILLERS: Final = (
    "INSERT INTO device {named} SELECT 'f-' || name, 'lamps', 'F-' || name, 'active', 0, 0, '{{}}'"
    " FROM named",
    "INSERT INTO enrollment {named} SELECT 'lamps', 'F-' || name, 0 FROM named",
    "INSERT INTO certificate (serial, device_id, state, claim_name, key_sha256,"
    " certificate_sha256, not_before, not_after, confirm_by, pem) {named}"
    " SELECT name || 's', 'f-' || name, 'active', 'batch-7', name || 'k', name || 'c', 0,"
    " 4000000000000000, 0, :pem FROM named",
    "INSERT INTO event (at, kind, device_id, serial_number, claim_name, repeated) {named}"
    " SELECT 0, 'claim.accepted', 'f-' || name, 'F-' || name, 'batch-7', 1 FROM named",
)


@dataclass(frozen=True)
class Rate:
    """How fast claims went. CPU in microseconds a claim."""

    per_second: float
    own_cpu_us: float
    server_cpu_us: float

    @property
    def cpu_us(self) -> float:
        """On both sides."""
        return self.own_cpu_us + self.server_cpu_us

    def __str__(self) -> str:
        return (
            f"{self.per_second:8.0f} claims/s   {self.own_cpu_us:6.0f} µs CPU a claim"
            f" ({1e6 / self.own_cpu_us:6.0f} claims per CPU-second)"
            + (f"   server {self.server_cpu_us:5.0f} µs" if self.server_cpu_us else "")
        )


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--claims", type=int, default=10_000, help="claims to measure")
    parser.add_argument("--few", type=int, default=1_000, help="devices of the small fleet")
    parser.add_argument("--many", type=int, default=1_000_000, help="devices of the large fleet")
    options = parser.parse_args()
    with _sqlite() as new_database:
        _compare("SQLite", new_database, options)
    with postgres_cluster() as cluster:
        _compare("PostgreSQL", cluster.new_database, options)


def _compare(name: str, new_database: Callable[[], str], options: argparse.Namespace) -> None:
    urls = {devices: _filled(new_database(), devices) for devices in (options.few, options.many)}
    alone, grouped = (
        _in_turns(urls, claims, together)
        for claims, together in ((options.claims // 10, 1), (options.claims, _TOGETHER))
    )
    for devices in urls:
        print(f"{name}, {devices:,} devices")
        print(f"  one by one     {alone[devices]}")
        print(f"  {_TOGETHER} at a time  {grouped[devices]}")
    few, many = (grouped[devices].cpu_us for devices in (options.few, options.many))
    print(f"  CPU of a claim, large fleet against small: {many / few:.2f}x\n", flush=True)


def _filled(url: str, devices: int) -> str:
    migrate(url)
    asyncio.run(_prepare(url))
    _fill(url, devices)
    return url


def _in_turns(urls: dict[int, str], claims: int, together: int) -> dict[int, Rate]:
    """The medians of rounds taken in turns, so that a busy machine is unfair to nobody."""
    rounds: dict[int, list[Rate]] = {devices: [] for devices in urls}
    for _ in range(_ROUNDS):
        for devices, url in urls.items():
            rounds[devices].append(asyncio.run(_measure(url, claims // _ROUNDS, together)))
    return {devices: _median(rates) for devices, rates in rounds.items()}


def _median(rates: list[Rate]) -> Rate:
    return sorted(rates, key=lambda rate: rate.cpu_us)[len(rates) // 2]


@contextmanager
def _sqlite() -> Iterator[Callable[[], str]]:
    with tempfile.TemporaryDirectory(prefix="muster-bench-") as folder:
        names = iter(range(100))
        yield lambda: f"sqlite:///{Path(folder)}/{next(names)}.db"


async def _prepare(url: str) -> None:
    def work(tx: WriteTransaction) -> None:
        tx.save_claim_certificate(a_claim_certificate(max_claims=10**9))
        tx.save_group(a_group(quota=10**9))

    async with SqlRegistry(url) as registry:
        await registry.write(work)


def _fill(url: str, devices: int) -> None:
    engine = writing_engine(url)
    named = _FILL_SQLITE if engine.dialect.name == "sqlite" else _FILL_POSTGRESQL
    with engine.begin() as connection:
        for statement in _FILLERS:
            text = sa.text(statement.format(named=named))
            values = {"count": devices, "spread": _SPREAD, "pem": _PEM}
            connection.execute(text, {k: v for k, v in values.items() if f":{k}" in text.text})
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(sa.text("VACUUM ANALYZE"))
    engine.dispose()


async def _measure(url: str, claims: int, together: int) -> Rate:
    async with SqlRegistry(url) as registry:
        numbers = iter(range(claims))

        async def claimant() -> None:
            for number in numbers:
                reply = await registry.write(_claim(f"{time.monotonic_ns()}-{number}"))
                published.append(reply)
                if len(published) >= together:
                    await registry.write(_removal(published))

        published: list[str] = []
        server = _server_cpu()
        cpu, began = time.process_time(), time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(together):
                tasks.create_task(claimant())
        took = time.monotonic() - began
        own = time.process_time() - cpu
        return Rate(claims / took, own / claims * 1e6, (_server_cpu() - server) / claims * 1e6)


def _claim(name: str) -> Callable[[WriteTransaction], str]:
    key = a_fingerprint(name)
    serial = SerialNumber(f"N-{name}")
    device = a_device(id=DeviceId(f"n-{name}"), serial=serial)
    certificate = a_certificate(
        serial=CertificateSerial(key[:40]),
        device_id=device.id,
        key_sha256=key,
        certificate_sha256=a_fingerprint(f"certificate {name}"),
        pem=_PEM,
    )
    event = Event(
        at=NOW,
        kind=EventKind.CLAIM_ACCEPTED,
        device_id=device.id,
        serial_number=serial,
        claim_name="batch-7",
        client_id=name,
        group="lamps",
        detail=f"certificate {certificate.serial}",
    )
    reply_id = hashlib.sha256(name.encode()).hexdigest()[:32]
    reply = Reply(reply_id, Zone.CLAIM, f"muster/v1/claim/batch-7/{name}/enroll", _PAYLOAD, NOW)

    def work(tx: WriteTransaction) -> str:
        context = tx.claim_context(a_claim_certificate().name, serial, key)
        assert context.group
        assert tx.device(device.id) is None
        tx.save_device(device)
        tx.count_device(context.group.name, 1)
        tx.save_certificate(certificate)
        tx.count_claim(a_claim_certificate().name, 1)
        tx.add_event(event)
        tx.add_reply(reply)
        return reply_id

    return work


def _removal(published: list[str]) -> Callable[[WriteTransaction], None]:
    done = list(published)
    published.clear()
    return lambda tx: tx.remove_replies(done)


def _server_cpu() -> float:
    """Seconds that our child processes (PostgreSQL's) have used."""
    total = 0.0
    for process in psutil.Process().children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
