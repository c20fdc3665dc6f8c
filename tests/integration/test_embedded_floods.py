"""Packets without end: whoever sends them is slowed, and its neighbours hardly notice."""

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from amqtt.mqtt.subscribe import SubscribePacket

from broker.adapters.brokers.embedded import BrokerLimits, EmbeddedBroker, Zone
from broker.adapters.brokers.embedded.errors import Ending
from tests.support.embedded import client_context, mqtt, raw, receive, running
from tests.support.flooding import Flood, flooding
from tests.support.pki import Pki
from tests.support.waiting import eventually

BATCH = "muster/v1/claim/batch"
PING = b"\xc0\x00"
PUBACK = b"\x40\x02\x00\x01"
STOP_S = 3.0
"""What `stop` promises."""


def _packet(kind: int, body: bytes) -> bytes:
    length, digits = len(body), bytearray()
    while length > 0x7F:
        digits.append(length & 0x7F | 0x80)
        length >>= 7
    return bytes([kind, *digits, length]) + body


def _text(text: str) -> bytes:
    return struct.pack("!H", len(text)) + text.encode()


OWN = f"{BATCH}/flooder/enroll/accepted"
FLOODS = {
    "pings": PING * 30_000,
    "acknowledgements of nothing": PUBACK * 15_000,
    "denied publishes": _packet(0x30, _text("a")) * 12_000,
    "the same filter": _packet(0x82, b"\x00\x01" + (_text(OWN) + b"\x01") * 32) * 100,
    "denied filters": _packet(0x82, b"\x00\x01" + (_text("a") + b"\x01") * 32) * 500,
    "filters that it doesn't hold": _packet(0xA2, b"\x00\x01" + _text("a") * 32) * 500,
}


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@asynccontextmanager
async def _flooded(
    pki: Pki, broker: EmbeddedBroker, blob: bytes, client_id: str = "flooder"
) -> AsyncIterator[Flood]:
    """While `batch`'s certificate floods the broker, whose sockets are full by then."""
    context = client_context(pki, pki.device(Zone.CLAIM, "batch"))
    async with flooding(broker.port, context, client_id, blob) as flood:
        await eventually(lambda: flood.sent > 20_000)
        yield flood


async def _ask_and_be_put_out(pki: Pki, broker: EmbeddedBroker, rounds: int = 5) -> float:
    """Has a neighbour ask the service, and be disconnected, some times; how long that takes."""
    pair = pki.device(Zone.CLAIM, "neighbour")
    loop = asyncio.get_running_loop()
    async with mqtt(pki, broker, pki.service(Zone.CLAIM), "muster-service-claim") as service:
        await service.subscribe("muster/v1/claim/neighbour/#", qos=1)
        began = loop.time()
        for _ in range(rounds):
            async with raw(pki, broker, pair) as device:
                assert await device.connect("dev") == 0
                topic = "muster/v1/claim/neighbour/dev/enroll"
                await device.send(_packet(0x32, _text(topic) + b"\x00\x07{}"))
                assert (await receive(service)).payload == b"{}"
                assert await broker.disconnect("neighbour") == 1
                await device.closed()
        return loop.time() - began


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_of_packets_leaves_its_neighbours_alone(pki: Pki, kind: str) -> None:
    async with running(pki, Zone.CLAIM) as broker:
        quiet_s = await _ask_and_be_put_out(pki, broker)
        async with _flooded(pki, broker, FLOODS[kind]) as flood:
            flooded_s = await _ask_and_be_put_out(pki, broker)
            assert not flood.has_ended, "it is slowed, and no more than that"
    assert flooded_s < 5 * quiet_s + 1.0


async def test_all_connections_of_one_certificate_share_a_pace(pki: Pki) -> None:
    limits = BrokerLimits(packets_per_name_second=20.0, packets_per_name_burst=1)
    pair = pki.device(Zone.CLAIM, "batch")
    loop = asyncio.get_running_loop()
    async with (
        running(pki, Zone.CLAIM, limits) as broker,
        raw(pki, broker, pair) as one,
        raw(pki, broker, pair) as other,
    ):
        assert await one.connect("one") == await other.connect("other") == 0
        began = loop.time()
        for client in (one, other):
            await client.send(PING * 10)
        for client in (one, other):
            for _ in range(10):
                assert type(await client.packet()).__name__ == "PingRespPacket"
        assert loop.time() - began > 0.9, "twenty pings, twenty a second"


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_broker_stops_in_time_whatever_comes(pki: Pki, kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with running(pki, Zone.CLAIM) as broker, _flooded(pki, broker, FLOODS[kind]) as flood:
        began = loop.time()
        await broker.stop()
        assert loop.time() - began < 2 * STOP_S
        await eventually(lambda: flood.has_ended)


@pytest.mark.parametrize("kind", [0x82, 0xA2])
async def test_more_filters_in_a_packet_than_anybody_needs_end_the_connection(
    pki: Pki, kind: int
) -> None:
    options = b"\x01" if kind == 0x82 else b""
    async with (
        running(pki, Zone.FLEET) as broker,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await device.connect("dev-1") == 0
        await device.send(_packet(kind, b"\x00\x01" + (_text("a") + options) * 33))
        await device.closed()
        await eventually(lambda: broker.endings.get(Ending.TOO_LARGE, 0) == 1)


async def test_who_floods_for_too_long_is_shaken_off(pki: Pki) -> None:
    limits = BrokerLimits(packets_per_second=1000.0, packets_burst=10, max_slowed=20)
    async with running(pki, Zone.CLAIM, limits) as broker:
        context = client_context(pki, pki.device(Zone.CLAIM, "batch"))
        async with flooding(broker.port, context, "flooder", PING * 100) as flood:
            await eventually(lambda: flood.has_ended)
        assert broker.endings[Ending.FLOODING] == 1


async def test_a_burst_is_answered_whole_and_in_order(pki: Pki) -> None:
    """Beyond what is taken at once the rest comes, only later."""
    limits = replace(BrokerLimits(), packets_per_second=1000.0, packets_burst=10)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await device.connect("dev-1") == 0
        wanted = [("muster/v1/fleet/#", 1)]
        for number in range(1, 51):
            await device.send(SubscribePacket.build(wanted, number).to_bytes())
        answered: list[int] = []
        for _ in range(50):
            answer: Any = await device.packet()
            answered.append(answer.variable_header.packet_id)
        assert answered == list(range(1, 51))
        assert not broker.endings


async def test_a_service_is_read_as_fast_as_it_sends(pki: Pki) -> None:
    limits = BrokerLimits(packets_per_second=0.001, packets_burst=1, max_slowed=1)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        raw(pki, broker, pki.service(Zone.FLEET)) as service,
    ):
        assert await service.connect("muster-service-fleet") == 0
        await service.send(PING * 100)
        for _ in range(100):
            assert type(await service.packet()).__name__ == "PingRespPacket"
