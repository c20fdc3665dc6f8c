"""The service's connection to a broker: acknowledged is only what was handled (ADR 0008)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from broker.entry.mqtt.link import BrokerLink, LinkSettings, LinkTls
from broker.ports.brokers import PublishError
from broker.ports.registry import RegistryError
from broker.protocol.messages import Endpoint
from broker.protocol.topics import CLAIM_REQUESTS
from broker.protocol.zones import Zone
from tests.support.certificates import Certificates
from tests.support.scripted_broker import Kind, ScriptedBroker, scripted_broker
from tests.support.waiting import eventually

TOPIC = "muster/v1/claim/batch-7/device-1/enroll"


class Desk:
    """Handles requests when the test lets it."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.may_go: dict[bytes, asyncio.Event] = {}
        self.connected = 0
        self.fails_with: Exception | None = None

    def let_go(self, payload: bytes) -> None:
        self._event(payload).set()

    async def handle(self, zone: Zone, topic: str, payload: bytes) -> None:
        assert (zone, topic) == (Zone.CLAIM, TOPIC)
        self.taken.append(payload)
        await self._event(payload).wait()

    async def on_connected(self, zone: Zone) -> None:
        self.connected += 1
        if self.fails_with is not None:
            raise self.fails_with

    async def has_taken(self, *payloads: bytes) -> None:
        await eventually(lambda: self.taken == list(payloads))

    def _event(self, payload: bytes) -> asyncio.Event:
        return self.may_go.setdefault(payload, asyncio.Event())


@pytest.fixture
async def certificates(tmp_path: Path) -> Certificates:
    return await asyncio.to_thread(Certificates, tmp_path)


@pytest.fixture
async def server(certificates: Certificates) -> AsyncIterator[ScriptedBroker]:
    async with scripted_broker(certificates) as listening:
        yield listening


@asynccontextmanager
async def linked(
    server: ScriptedBroker, certificates: Certificates, desk: Desk, concurrent: int = 10
) -> AsyncIterator[BrokerLink]:
    home = certificates.home
    pair = home.service(Zone.CLAIM)
    settings = LinkSettings(
        zone=Zone.CLAIM,
        broker=Endpoint(host="localhost", port=server.port),
        tls=LinkTls(pair.certificate, pair.key, home.server_anchors),
        name="muster-service-claim",
        subscription=CLAIM_REQUESTS,
        concurrent=concurrent,
    )
    link = BrokerLink(settings, desk.handle, desk.on_connected)
    running = asyncio.create_task(link.run())
    try:
        yield link
    finally:
        running.cancel()
        await asyncio.wait({running})
        if not running.cancelled():
            await running


async def test_what_is_being_handled_is_not_acknowledged(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    desk = Desk()
    async with linked(server, certificates, desk):
        connection = await server.next()
        connection.publish(TOPIC, b"one", 7)
        await desk.has_taken(b"one")
        with pytest.raises(TimeoutError):
            await connection.packet(within=0.3)
        desk.let_go(b"one")
        assert await connection.acknowledged() == 7


async def test_each_is_acknowledged_by_itself(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    desk = Desk()
    async with linked(server, certificates, desk):
        connection = await server.next()
        for packet_id, payload in enumerate((b"one", b"two", b"three"), 1):
            connection.publish(TOPIC, payload, packet_id)
        await desk.has_taken(b"one", b"two", b"three")
        for packet_id, payload in ((3, b"three"), (1, b"one"), (2, b"two")):
            desk.let_go(payload)
            assert await connection.acknowledged() == packet_id


async def test_no_more_are_in_hand_than_was_said(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    desk = Desk()
    async with linked(server, certificates, desk, concurrent=1):
        connection = await server.next()
        connection.publish(TOPIC, b"one", 1)
        connection.publish(TOPIC, b"two", 2)
        await desk.has_taken(b"one")
        desk.let_go(b"one")
        assert await connection.acknowledged() == 1
        await desk.has_taken(b"one", b"two")
        desk.let_go(b"two")
        assert await connection.acknowledged() == 2


async def test_an_acknowledgement_never_goes_to_another_connection(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    """Packet ids mean nothing on the next connection: there 7 is another message."""
    desk = Desk()
    async with linked(server, certificates, desk):
        first = await server.next()
        first.publish(TOPIC, b"one", 7)
        await desk.has_taken(b"one")
        first.drop()
        second = await server.next()
        second.publish(TOPIC, b"other", 7)
        await desk.has_taken(b"one", b"other")
        desk.let_go(b"one")
        with pytest.raises(TimeoutError):
            await second.packet(within=0.3)
        desk.let_go(b"other")
        assert await second.acknowledged() == 7


async def test_it_comes_back_for_ever(server: ScriptedBroker, certificates: Certificates) -> None:
    desk = Desk()
    async with linked(server, certificates, desk) as link:
        for _ in range(3):
            connection = await server.next()
            await eventually(link.connected.is_set)
            connection.drop()
        await server.next()
        await eventually(lambda: desk.connected == 4)


async def test_it_is_connected_while_it_hears_requests_and_not_before(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    async with linked(server, certificates, Desk()) as link:
        unanswered = await server.next(granted=None)
        await eventually(lambda: link.session is not None)
        assert not link.is_connected
        unanswered.drop()
        heard = await server.next()
        await eventually(lambda: link.is_connected)
        heard.drop()
        await eventually(lambda: not link.is_connected)


async def test_a_subscription_that_is_refused_ends_the_connection_and_is_tried_again(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    with capture_logs() as logs:
        async with linked(server, certificates, Desk()) as link:
            refused = await server.next(granted=0x80)
            assert (await refused.packet())[0] is Kind.DISCONNECT
            assert not link.is_connected
            (told,) = [each for each in logs if each["event"] == "subscription_refused"]
            assert CLAIM_REQUESTS in told["error"]
            assert "muster-service-claim" in told["remedy"]
            await server.next()
            await eventually(lambda: link.is_connected)


async def test_a_registry_that_is_away_does_not_end_it(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    """What waits in the outbox can't be read then: requests are heard all the same."""
    desk = Desk()
    desk.fails_with = RegistryError("registry_unavailable", "PostgreSQL is away.")
    async with linked(server, certificates, desk):
        connection = await server.next()
        connection.publish(TOPIC, b"one", 1)
        await desk.has_taken(b"one")
        desk.let_go(b"one")
        assert await connection.acknowledged() == 1
        desk.fails_with = None
        before = desk.connected
        await eventually(lambda: desk.connected > before)


async def test_publishing_returns_when_the_broker_has_it(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    desk = Desk()
    async with linked(server, certificates, desk) as link:
        with pytest.raises(PublishError):
            await link.publish("muster/v1/x", b"too early")
        connection = await server.next()
        await eventually(link.connected.is_set)
        publishing = asyncio.create_task(link.publish("muster/v1/x", b"answer"))
        kind, body = await connection.packet()
        assert (kind, body.endswith(b"answer")) == (Kind.PUBLISH, True)
        assert not publishing.done()
        connection.drop()
        with pytest.raises(PublishError):
            await publishing


async def test_many_are_with_the_broker_when_each_is_acknowledged(
    server: ScriptedBroker, certificates: Certificates
) -> None:
    async with linked(server, certificates, Desk()) as link:
        with pytest.raises(PublishError):
            await link.retain([("muster/v1/x", b"too early")])
        connection = await server.next()
        await eventually(link.connected.is_set)
        retaining = asyncio.create_task(link.retain([("a", b"1"), ("b", b"2")]))
        for payload in (b"1", b"2"):
            assert not retaining.done()
            kind, body = await connection.packet(within=60)
            assert (kind, body.endswith(payload)) == (Kind.PUBLISH, True)
            connection.acknowledge(body)
        await retaining
        again = asyncio.create_task(link.retain([("a", b"3")]))
        await connection.packet(within=60)
        connection.drop()
        with pytest.raises(PublishError):
            await again
