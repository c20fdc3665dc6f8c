"""Revocation: how long until a connected device is refused and disconnected."""

import asyncio
import secrets
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final

from broker.adapters.clock import SystemClock
from broker.composition.registries import open_registry
from broker.core.lifecycle import DeviceInput
from broker.ports.registry import DeviceFilter, Registry, WriteTransaction
from broker.protocol.names import CertificateSerial, DeviceId, Fingerprint, SerialNumber
from broker.protocol.zones import Zone
from broker.services import device_acts
from broker.services.device_acts import Wanted
from broker.services.revoking import FLEET_CRL_WANTED
from broker.settings import BrokerKind
from tests.bench.bench import CLAIM, MANY, Bench
from tests.bench.measuring import percentile, say
from tests.bench.report import Row, at_most
from tests.support.acting import joined
from tests.support.certificates import Client
from tests.support.knocking import Answer, knock
from tests.support.peers import Peer, peer
from tests.support.stack import Plan, Stack, running_stack
from tests.support.waiting import eventually

_DEVICES: Final = 200
_SINGLY: Final = 100
_LARGE_CRL: Final = 50_000
_WITH_LARGE_CRL: Final = 20
_A_COMMIT: Final = 5_000
_JOINING: Final = 16
_TO_HOLD_MS: Final = 1000.0
_GIVE_UP_S: Final = 20.0
_KNOCK_AGAIN_S: Final = 0.02
_LIMITS: Final[dict[str, str | float]] = {"claims_per_second": 1e6, "claims_burst": 1_000_000}

Connected = tuple[Client, Peer]


async def measure(bench: Bench) -> list[Row]:
    """On both brokers: some devices one after the other, the others in one act."""
    rows = []
    for kind in (BrokerKind.MOSQUITTO, BrokerKind.EMBEDDED):
        say(f"lock-outs of {_DEVICES} connected devices, {kind}")
        plan = Plan(brokers=kind, in_process=False, limits=_LIMITS)
        place = bench.place(f"lock-out-{kind}")
        async with running_stack(place, plan) as stack:
            await stack.installation.add_claim_certificate(CLAIM, max_claims=MANY)
            await stack.installation.save_group(quota=MANY)
            rows += await _measure(stack, place, kind)
    return rows


async def _measure(stack: Stack, place: Path, kind: BrokerKind) -> list[Row]:
    clients = await _join(stack, place)
    async with (
        AsyncExitStack() as connected,
        open_registry(stack.home, stack.installation.settings) as registry,
    ):
        port = stack.ports[Zone.FLEET]
        peers = [(c, await connected.enter_async_context(peer(port, c))) for c in clients]
        singly = []
        for each in peers[:_SINGLY]:
            singly += await _revoke(stack, registry, [each])
        at_once = await _revoke(stack, registry, peers[_SINGLY:-_WITH_LARGE_CRL])
        await _fill_crl(stack, registry)
        large = []
        for each in peers[-_WITH_LARGE_CRL:]:
            large += await _revoke(stack, registry, [each])
    what = f"revoked, disconnected and refused, {kind}"
    return [
        _row(f"{what}: {_DEVICES - len(large)} connected devices", singly + at_once),
        _row(f"- {len(singly)} of them one by one", singly),
        _row(f"- {len(at_once)} of them in one act", at_once),
        _row(f"- {len(large)} one by one with {_LARGE_CRL:,} lines on the CRL", large),
    ]


async def _fill_crl(stack: Stack, registry: Registry) -> None:
    """As many revoked certificates as make a large CRL, of one device more; until it's signed."""

    def add(tx: WriteTransaction) -> None:
        (device,) = tx.devices(DeviceFilter(limit=1))
        revoked = tx.certificates_of([device.id])[0]
        other = replace(device, id=DeviceId("many"), serial=SerialNumber("many"))
        tx.save_device(other)
        for _ in range(_A_COMMIT):
            tx.save_certificate(
                replace(
                    revoked,
                    device_id=other.id,
                    serial=CertificateSerial(f"{secrets.randbits(158):x}"),
                    key_sha256=Fingerprint(secrets.token_hex(32)),
                    certificate_sha256=Fingerprint(secrets.token_hex(32)),
                )
            )

    for _ in range(_LARGE_CRL // _A_COMMIT):
        await registry.write(add)
    await registry.write(lambda tx: tx.raise_counter(FLEET_CRL_WANTED))
    await eventually(lambda: len(stack.revoked_serials()) >= _LARGE_CRL)


async def _join(stack: Stack, place: Path) -> list[Client]:
    serials = [f"L{number:04d}" for number in range(_DEVICES)]
    clients: list[Client] = []
    for begin in range(0, _DEVICES, _JOINING):
        some = serials[begin : begin + _JOINING]
        joining = (joined(stack, place, serial) for serial in some)
        for each in await asyncio.gather(*joining):
            clients += each
    return clients


async def _revoke(stack: Stack, registry: Registry, peers: Sequence[Connected]) -> list[float]:
    """Seconds for each, from the request until it's both disconnected and refused."""
    devices = [(DeviceId(client.name), uuid.uuid4().hex) for client, _ in peers]
    began = time.perf_counter()
    wanted = Wanted(DeviceInput.REVOKE, "measured")
    async with asyncio.TaskGroup() as tasks:
        waiting = [tasks.create_task(_out(stack, each, began)) for each in peers]
        async for _ in device_acts.carry_out(registry, SystemClock(), devices, wanted):
            pass
    return [task.result() for task in waiting]


async def _out(stack: Stack, connected: Connected, began: float) -> float:
    client, connection = connected
    await connection.ended(within=_GIVE_UP_S)
    # It may end before the CRL is in force.
    async with asyncio.timeout(_GIVE_UP_S):
        while await knock(stack.ports[Zone.FLEET], client) is not Answer.REFUSED:
            await asyncio.sleep(_KNOCK_AGAIN_S)
    return time.perf_counter() - began


def _row(what: str, seconds: Sequence[float]) -> Row:
    p50, p99 = (1000 * percentile(list(seconds), part) for part in (0.5, 0.99))
    figure = f"p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    return at_most(what, figure, p99, _TO_HOLD_MS, f"p99 <= {_TO_HOLD_MS:.0f} ms")
