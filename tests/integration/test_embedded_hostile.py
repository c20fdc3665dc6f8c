"""Clients that mean harm, or are broken: each is shaken off, and nobody else notices."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket

from broker.adapters.brokers.embedded import BrokerLimits, EmbeddedBroker, Zone
from broker.adapters.brokers.embedded.errors import Ending
from tests.support.embedded import RawClient, connect_packet, mqtt, raw, receive, running
from tests.support.pki import Pki
from tests.support.waiting import eventually

DEVICE = "muster/v1/device/dev-1"
HASTY = BrokerLimits(handshake_s=1.0, connect_s=0.3, idle_max_s=0.4, write_s=0.5)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def fleet(pki: Pki) -> AsyncIterator[EmbeddedBroker]:
    async with running(pki, Zone.FLEET, HASTY) as broker:
        yield broker


@pytest.fixture
async def device(pki: Pki, fleet: EmbeddedBroker) -> AsyncIterator[RawClient]:
    async with raw(pki, fleet, pki.device(Zone.FLEET, "dev-1")) as client:
        yield client


async def _ends(broker: EmbeddedBroker, ending: Ending) -> None:
    await eventually(lambda: broker.endings.get(ending, 0) == 1)
    assert broker.connections == 0


def _publish(topic: str, size: int = 10, qos: int = 0) -> bytes:
    packet_id = 1 if qos else None
    return PublishPacket.build(topic, bytes(size), packet_id, False, qos, False).to_bytes()


async def test_bytes_that_are_no_tls(fleet: EmbeddedBroker) -> None:
    reader, writer = await asyncio.open_connection("localhost", fleet.port)
    writer.write(b"GET / HTTP/1.1\r\n\r\n" + os.urandom(500))
    with contextlib.suppress(OSError):
        await asyncio.wait_for(reader.read(), 60)
    writer.transport.abort()
    await _ends(fleet, Ending.TLS_FAILED)


async def test_a_socket_that_never_speaks_tls(pki: Pki) -> None:
    async with running(pki, Zone.FLEET, replace(HASTY, handshake_s=0.3)) as broker:
        _, writer = await asyncio.open_connection("localhost", broker.port)
        await _ends(broker, Ending.TLS_FAILED)
        writer.transport.abort()


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (os.urandom(1) + b"\xff\xff\xff\xff\xff" + os.urandom(100), Ending.MALFORMED),
        (b"\x10\xff\xff\xff\x7f", Ending.TOO_LARGE),
        (b"\x10\x80\x80\x80\x80\x01", Ending.MALFORMED),
        (b"\xc0\x00", Ending.PROTOCOL),
        (_publish(f"{DEVICE}/x"), Ending.PROTOCOL),
        (connect_packet("x" * 9000), Ending.TOO_LARGE),
    ],
)
async def test_a_first_packet_that_is_none(
    fleet: EmbeddedBroker, device: RawClient, data: bytes, ending: Ending
) -> None:
    await device.send(data)
    await device.closed()
    await _ends(fleet, ending)


@pytest.mark.parametrize(
    ("data", "ending"),
    [
        (_publish(f"{DEVICE}/x", qos=2), Ending.PROTOCOL),
        (connect_packet("dev-1"), Ending.PROTOCOL),
        (b"\x30\xff\xff\xff\x7f", Ending.TOO_LARGE),
        (_publish(f"{DEVICE}/x", size=256 * 1024), Ending.TOO_LARGE),
        (b"\x30\x05\x00\x03a/+", Ending.MALFORMED),
        (b"\xf0\x00", Ending.PROTOCOL),
    ],
)
async def test_a_later_packet_that_breaks_the_rules(
    fleet: EmbeddedBroker, device: RawClient, data: bytes, ending: Ending
) -> None:
    assert await device.connect("dev-1") == 0
    await device.send(data)
    await device.closed()
    await _ends(fleet, ending)


async def test_a_large_packet_within_the_limit_passes(
    pki: Pki, fleet: EmbeddedBroker, device: RawClient
) -> None:
    async with mqtt(pki, fleet, pki.service(Zone.FLEET), "muster-service-fleet") as service:
        await service.subscribe("muster/v1/#")
        assert await device.connect("dev-1") == 0
        await device.send(_publish(f"{DEVICE}/x", size=200 * 1024))
        message = await receive(service)
        assert message.payload == bytes(200 * 1024)


async def test_a_connect_that_never_comes(fleet: EmbeddedBroker, device: RawClient) -> None:
    await device.closed()
    await _ends(fleet, Ending.CONNECT_LATE)


async def test_a_connect_that_comes_byte_by_byte(fleet: EmbeddedBroker, device: RawClient) -> None:
    await device.send(connect_packet("dev-1")[:-1])
    await device.closed()
    await _ends(fleet, Ending.CONNECT_LATE)


@pytest.mark.parametrize("trickle", [b"", b"\x30\x7f\x00"])
async def test_silence_beyond_the_longest_idle_time(
    fleet: EmbeddedBroker, device: RawClient, trickle: bytes
) -> None:
    """Half a packet is silence too."""
    assert await device.connect("dev-1", keep_alive=0) == 0
    await device.send(trickle)
    await device.closed()
    await _ends(fleet, Ending.SILENT)


async def test_silence_beyond_its_own_keepalive(pki: Pki) -> None:
    async with (
        running(pki, Zone.FLEET) as broker,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        started = asyncio.get_running_loop().time()
        assert await device.connect("dev-1", keep_alive=1) == 0
        await device.closed()
        assert asyncio.get_running_loop().time() - started > 1.4
        await _ends(broker, Ending.SILENT)


async def test_pings_keep_a_connection(fleet: EmbeddedBroker, device: RawClient) -> None:
    assert await device.connect("dev-1", keep_alive=0) == 0
    loop = asyncio.get_running_loop()
    until = loop.time() + 3 * HASTY.idle_max_s
    while loop.time() < until:
        await device.send(b"\xc0\x00")
        assert type(await device.packet()).__name__ == "PingRespPacket"
        await asyncio.sleep(HASTY.idle_max_s / 8)  # the interval is what is tested
    assert fleet.connections == 1


async def test_a_client_that_does_not_read(pki: Pki) -> None:
    limits = replace(HASTY, max_outgoing=128 * 1024, idle_max_s=60)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        mqtt(pki, broker, pki.service(Zone.FLEET), "muster-service-fleet") as service,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await device.connect("dev-1", keep_alive=0) == 0
        await device.send(SubscribePacket.build([(f"{DEVICE}/#", 0)], 1).to_bytes())
        await device.packet()
        device.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(400):
            await service.publish(f"{DEVICE}/x/accepted", bytes(64 * 1024), qos=1)
            if broker.endings.get(Ending.STALLED):
                break
        await eventually(lambda: broker.endings.get(Ending.STALLED, 0) == 1)
        assert broker.connections == 1, "the service is well"


async def test_a_client_that_reads_nothing_for_too_long(pki: Pki) -> None:
    """Even when what waits for it is within the bounds."""
    limits = replace(HASTY, max_outgoing=1024**3, idle_max_s=60)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        mqtt(pki, broker, pki.service(Zone.FLEET), "muster-service-fleet") as service,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await device.connect("dev-1", keep_alive=0) == 0
        await device.send(SubscribePacket.build([(f"{DEVICE}/#", 0)], 1).to_bytes())
        await device.packet()
        device.writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(20):
            await service.publish(f"{DEVICE}/x/accepted", bytes(1_000_000), qos=1)
        await eventually(lambda: broker.endings.get(Ending.STALLED, 0) == 1)


async def test_much_that_is_retained_comes_no_faster_than_it_is_read(pki: Pki) -> None:
    """A client that reads isn't taken for one that doesn't, however much there is for it."""
    limits = BrokerLimits(max_outgoing=64 * 1024)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        mqtt(pki, broker, pki.service(Zone.FLEET), "muster-service-fleet") as service,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        for number in range(30):
            topic = f"muster/v1/fleet/part-{number}"
            await service.publish(topic, bytes(900_000), qos=1, retain=True)
        assert await device.connect("dev-1") == 0
        await device.send(SubscribePacket.build([("muster/v1/fleet/#", 0)], 1).to_bytes())
        await device.packet()
        parts = [await device.packet() for _ in range(30)]
        assert all(type(part).__name__ == "PublishPacket" for part in parts)
        assert not broker.endings


async def test_a_client_that_asks_without_reading_is_read_no_further(pki: Pki) -> None:
    limits = replace(HASTY, max_outgoing=64 * 1024, idle_max_s=60)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        mqtt(pki, broker, pki.service(Zone.FLEET), "muster-service-fleet") as service,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        await service.publish("muster/v1/fleet/big", bytes(200_000), qos=1, retain=True)
        assert await device.connect("dev-1", keep_alive=0) == 0
        device.writer.transport.pause_reading()  # type: ignore[attr-defined]
        ask = SubscribePacket.build([("muster/v1/fleet/#", 0)], 1).to_bytes()
        device.writer.write(ask * 5000)
        await eventually(lambda: broker.endings.get(Ending.STALLED, 0) == 1)


async def test_a_dollar_topic_leaves_the_connection_alive(
    fleet: EmbeddedBroker, device: RawClient
) -> None:
    """amqtt alone acknowledges nothing more on such a connection, and keeps it."""
    assert await device.connect("dev-1") == 0
    await device.send(_publish("$SYS/broker", qos=1))
    assert type(await device.packet()).__name__ == "PubackPacket"
    await device.send(_publish(f"{DEVICE}/confirm", qos=1))
    assert type(await device.packet()).__name__ == "PubackPacket"


async def test_subscriptions_are_bounded(pki: Pki) -> None:
    limits = replace(HASTY, max_filters=3, idle_max_s=60)
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await device.connect("dev-1") == 0
        for number in range(5):
            filters = [(f"{DEVICE}/desired/{number}", 0)]
            await device.send(SubscribePacket.build(filters, number + 1).to_bytes())
        codes: list[int] = []
        for _ in range(5):
            answer: Any = await device.packet()
            codes += answer.payload.return_codes
        assert codes == [0, 0, 0, 0x80, 0x80]


def _unchanged(measure: Callable[[], int]) -> Callable[[], bool]:
    """Becomes true when the measure has been the same for a while."""
    seen: list[int] = []

    def is_unchanged() -> bool:
        seen.append(measure())
        return len(seen) > 20 and len(set(seen[-20:])) == 1

    return is_unchanged


async def test_a_flood_is_slowed_and_arrives_whole(pki: Pki) -> None:
    """What is sent faster than the service reads waits on the sender's side, not in the broker."""
    limits = BrokerLimits(max_outgoing_service=1024 * 1024)
    count = 300
    async with (
        running(pki, Zone.FLEET, limits) as broker,
        raw(pki, broker, pki.service(Zone.FLEET)) as service,
        raw(pki, broker, pki.device(Zone.FLEET, "dev-1")) as device,
    ):
        assert await service.connect("muster-service-fleet") == 0
        await service.send(SubscribePacket.build([("muster/v1/#", 0)], 1).to_bytes())
        await service.packet()
        service.writer.transport.pause_reading()  # type: ignore[attr-defined]
        assert await device.connect("dev-1") == 0
        sending = asyncio.create_task(device.send(_publish(f"{DEVICE}/x", size=100_000) * count))
        await eventually(broker._running().services_lag)
        await eventually(_unchanged(device.writer.transport.get_write_buffer_size))
        service.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(count):
            assert type(await service.packet()).__name__ == "PublishPacket"
        await sending
        assert not broker.endings


async def test_one_name_has_only_so_many_connections(pki: Pki) -> None:
    limits = BrokerLimits(max_per_claim=3)
    async with running(pki, Zone.CLAIM, limits) as broker, AsyncExitStack() as stack:
        pair, other = pki.device(Zone.CLAIM, "batch"), pki.device(Zone.CLAIM, "other")
        for number in range(3):
            client = await stack.enter_async_context(raw(pki, broker, pair))
            assert await client.connect(f"dev-{number}") == 0
        fourth = await stack.enter_async_context(raw(pki, broker, pair))
        await fourth.closed()
        assert broker.endings[Ending.TOO_MANY] == 1
        stranger = await stack.enter_async_context(raw(pki, broker, other))
        assert await stranger.connect("dev-0") == 0


async def test_silent_newcomers_are_crowded_out(pki: Pki) -> None:
    limits = BrokerLimits(max_connecting=4, patience_s=0.2)
    async with running(pki, Zone.CLAIM, limits) as broker, AsyncExitStack() as stack:
        silent = [await asyncio.open_connection("localhost", broker.port) for _ in range(4)]
        for _, writer in silent:
            stack.callback(writer.transport.abort)
        await eventually(lambda: broker.connections == 4)
        client = await stack.enter_async_context(raw(pki, broker, pki.device(Zone.CLAIM, "batch")))
        assert await client.connect("dev") == 0
        assert broker.endings[Ending.CROWDED_OUT] >= 1


async def test_a_broker_that_is_full_makes_newcomers_wait(pki: Pki) -> None:
    limits = BrokerLimits(max_connections=2)
    pair = pki.device(Zone.CLAIM, "batch")
    async with running(pki, Zone.CLAIM, limits) as broker, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(pki, broker, pair)) for _ in range(2)]
        for number, client in enumerate(clients):
            assert await client.connect(f"dev-{number}") == 0
        waiting = asyncio.create_task(_connect_once(pki, broker, pair))
        clients[0].writer.transport.abort()
        assert await asyncio.wait_for(waiting, 60) == 0


async def _connect_once(pki: Pki, broker: EmbeddedBroker, pair: Any) -> int:
    async with raw(pki, broker, pair) as client:
        return await client.connect("late")


async def test_others_go_on_while_one_misbehaves(pki: Pki, fleet: EmbeddedBroker) -> None:
    async with mqtt(pki, fleet, pki.service(Zone.FLEET), "muster-service-fleet") as service:
        await service.subscribe("muster/v1/#", qos=1)
        messages = aiter(service.messages)
        for number in range(10):
            name = f"bad-{number}"
            async with raw(pki, fleet, pki.device(Zone.FLEET, name)) as bad:
                await bad.connect(name)
                await bad.send(os.urandom(2000))
            async with mqtt(pki, fleet, pki.device(Zone.FLEET, "dev-1"), "dev-1") as good:
                await good.publish(f"{DEVICE}/confirm", b"%d" % number, qos=1)
                message: aiomqtt.Message = await asyncio.wait_for(anext(messages), 60)
                assert message.payload == b"%d" % number
