"""The four guarantees of the embedded broker, with stock clients over real TLS."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from amqtt.mqtt.publish import PublishPacket

from broker.adapters.brokers.embedded import EmbeddedBroker, Zone
from broker.adapters.brokers.embedded.errors import Ending
from broker.adapters.brokers.embedded.packets import DISCONNECT
from tests.support.embedded import client_context, connect_packet, mqtt, raw, receive, running
from tests.support.pki import Pair, Pki
from tests.support.waiting import eventually

CLAIM = "muster/v1/claim"
DEVICE = "muster/v1/device"


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def claim(pki: Pki) -> AsyncIterator[EmbeddedBroker]:
    async with running(pki, Zone.CLAIM) as broker:
        yield broker


@pytest.fixture
async def fleet(pki: Pki) -> AsyncIterator[EmbeddedBroker]:
    async with running(pki, Zone.FLEET) as broker:
        yield broker


async def _service(
    stack: AsyncExitStack, pki: Pki, broker: EmbeddedBroker, zone: Zone
) -> aiomqtt.Client:
    name = f"muster-service-{zone}"
    service = await stack.enter_async_context(mqtt(pki, broker, pki.service(zone), name))
    await service.subscribe("muster/v1/#", qos=1)
    return service


@pytest.fixture
async def claim_service(pki: Pki, claim: EmbeddedBroker) -> AsyncIterator[aiomqtt.Client]:
    async with AsyncExitStack() as stack:
        yield await _service(stack, pki, claim, Zone.CLAIM)


@pytest.fixture
async def fleet_service(pki: Pki, fleet: EmbeddedBroker) -> AsyncIterator[aiomqtt.Client]:
    async with AsyncExitStack() as stack:
        yield await _service(stack, pki, fleet, Zone.FLEET)


async def test_a_request_arrives_under_its_senders_names_and_no_other(
    pki: Pki, claim: EmbeddedBroker, claim_service: aiomqtt.Client
) -> None:
    async with mqtt(pki, claim, pki.device(Zone.CLAIM, "batch"), "dev-1") as device:
        for forged in (
            f"{CLAIM}/batch/dev-2/enroll",
            f"{CLAIM}/other/dev-1/enroll",
            f"{CLAIM}/batch/dev-1/enroll/accepted",
            f"{DEVICE}/dev-1/confirm",
            "$SYS/forged",
            "anything",
        ):
            await device.publish(forged, b"forged", qos=1)
        await device.publish(f"{CLAIM}/batch/dev-1/enroll", b"true", qos=1)
        message = await receive(claim_service)
    assert (str(message.topic), message.payload) == (f"{CLAIM}/batch/dev-1/enroll", b"true")


async def test_an_answer_reaches_the_asker_alone(
    pki: Pki, claim: EmbeddedBroker, claim_service: aiomqtt.Client
) -> None:
    pair = pki.device(Zone.CLAIM, "batch")
    async with mqtt(pki, claim, pair, "dev-1") as asker, mqtt(pki, claim, pair, "dev-2") as other:
        await asker.subscribe(f"{CLAIM}/batch/dev-1/+/accepted", qos=1)
        await other.subscribe(f"{CLAIM}/batch/dev-2/+/accepted", qos=1)
        for wide in ("#", f"{CLAIM}/batch/+/+/accepted", f"{CLAIM}/batch/dev-1/enroll/accepted"):
            with pytest.raises(aiomqtt.MqttError):
                await _subscribe_strictly(other, wide)
        await claim_service.publish(f"{CLAIM}/batch/dev-1/enroll/accepted", b"private", qos=1)
        await claim_service.publish(f"{CLAIM}/batch/dev-2/enroll/accepted", b"its own", qos=1)
        assert (await receive(asker)).payload == b"private"
        assert (await receive(other)).payload == b"its own"


async def _subscribe_strictly(client: aiomqtt.Client, filter_: str) -> None:
    """aiomqtt returns the refusal of a SUBSCRIBE as a code; this raises it."""
    codes: Any = await client.subscribe(filter_, qos=1)
    if any(int(getattr(code, "value", code)) >= 0x80 for code in codes):
        raise aiomqtt.MqttError(f"{filter_} was refused")


async def test_the_same_client_id_under_two_claim_certificates_is_two_clients(
    pki: Pki, claim: EmbeddedBroker, claim_service: aiomqtt.Client
) -> None:
    one, two = pki.device(Zone.CLAIM, "batch-1"), pki.device(Zone.CLAIM, "batch-2")
    async with mqtt(pki, claim, one, "dev") as first:
        await first.subscribe(f"{CLAIM}/batch-1/dev/#", qos=1)
        async with mqtt(pki, claim, two, "dev", clean_session=True) as second:
            await second.subscribe(f"{CLAIM}/batch-2/dev/#", qos=1)
            for batch in ("batch-1", "batch-2"):
                topic = f"{CLAIM}/{batch}/dev/enroll/accepted"
                await claim_service.publish(topic, batch.encode(), qos=1)
            assert (await receive(first)).payload == b"batch-1"
            assert (await receive(second)).payload == b"batch-2"
    assert not claim.endings.get(Ending.TAKEN_OVER)


async def test_retained_messages_reach_only_who_may_read_them(
    pki: Pki, fleet: EmbeddedBroker, fleet_service: aiomqtt.Client
) -> None:
    """amqtt alone gives a newcomer whatever matches anybody's filter."""
    for topic in (f"{DEVICE}/dev-1/desired/state", f"{DEVICE}/dev-2/desired/state"):
        await fleet_service.publish(topic, topic.encode(), qos=1, retain=True)
    await fleet_service.publish("muster/v1/fleet/root", b"public", qos=1, retain=True)
    async with mqtt(pki, fleet, pki.device(Zone.FLEET, "dev-2"), "dev-2") as device:
        await device.subscribe(f"{DEVICE}/dev-2/#", qos=1)
        await device.subscribe("muster/v1/fleet/#", qos=1)
        first, second = await receive(device), await receive(device)
        assert str(first.topic) == f"{DEVICE}/dev-2/desired/state"
        assert (second.payload, second.retain) == (b"public", True)
        # Whatever came besides would have come before this.
        await fleet_service.publish(f"{DEVICE}/dev-2/x/accepted", b"end", qos=1)
        assert (await receive(device)).payload == b"end"


async def test_nothing_that_a_device_sends_is_retained(
    pki: Pki, fleet: EmbeddedBroker, fleet_service: aiomqtt.Client
) -> None:
    async with mqtt(pki, fleet, pki.device(Zone.FLEET, "dev-1"), "dev-1") as device:
        await device.publish(f"{DEVICE}/dev-1/confirm", b"now", qos=1, retain=True)
        assert (await receive(fleet_service)).payload == b"now"
    await fleet_service.unsubscribe("muster/v1/#")
    await fleet_service.publish("muster/v1/fleet/kept", b"kept", qos=1, retain=True)
    await fleet_service.subscribe("muster/v1/#", qos=1)
    message = await receive(fleet_service)
    assert (str(message.topic), message.retain) == ("muster/v1/fleet/kept", True)


async def test_a_new_connection_ends_the_old_one(
    pki: Pki, fleet: EmbeddedBroker, fleet_service: aiomqtt.Client
) -> None:
    pair = pki.device(Zone.FLEET, "dev-1")
    async with raw(pki, fleet, pair) as old:
        assert await old.connect("dev-1") == 0
        async with mqtt(pki, fleet, pair, "dev-1") as new:
            await old.closed()
            await new.subscribe(f"{DEVICE}/dev-1/#", qos=1)
            await fleet_service.publish(f"{DEVICE}/dev-1/confirm/accepted", b"new", qos=1)
            assert (await receive(new)).payload == b"new"
    assert fleet.endings[Ending.TAKEN_OVER] == 1


async def test_many_takeovers_at_once_leave_one(pki: Pki, claim: EmbeddedBroker) -> None:
    pair = pki.device(Zone.CLAIM, "batch")
    async with AsyncExitStack() as stack:
        rivals = [await stack.enter_async_context(raw(pki, claim, pair)) for _ in range(20)]

        async def connect(index: int) -> int:
            return await rivals[index].connect("dev-1")

        await asyncio.gather(*(connect(i) for i in range(20)), return_exceptions=True)
        await eventually(lambda: claim.connections == 1)
        assert claim.endings[Ending.TAKEN_OVER] == 19


async def test_a_persistent_session_is_nobodys_to_take(
    pki: Pki, claim: EmbeddedBroker, claim_service: aiomqtt.Client
) -> None:
    """amqtt alone accepts a client without credentials into an old session of that id."""
    victim, thief = pki.device(Zone.CLAIM, "victim"), pki.device(Zone.CLAIM, "thief")
    async with mqtt(pki, claim, victim, "dev", clean_session=False) as owner:
        await owner.subscribe(f"{CLAIM}/victim/dev/#", qos=1)
    async with raw(pki, claim, thief) as robber:
        assert await robber.connect("dev", clean_session_flag=False) == 0
        await claim_service.publish(f"{CLAIM}/victim/dev/enroll/accepted", b"secret", qos=1)
        await robber.send(b"\xc0\x00")
        assert type(await robber.packet()).__name__ == "PingRespPacket"


async def test_no_session_is_ever_present(pki: Pki, fleet: EmbeddedBroker) -> None:
    pair = pki.device(Zone.FLEET, "dev-1")
    for _ in range(2):
        async with raw(pki, fleet, pair) as client:
            await client.send(connect_packet("dev-1", clean_session_flag=False))
            connack: Any = await client.packet()
            assert (connack.session_parent, connack.return_code) == (0, 0)


async def test_a_device_connects_under_its_own_name_only(pki: Pki, fleet: EmbeddedBroker) -> None:
    async with raw(pki, fleet, pki.device(Zone.FLEET, "dev-1")) as client:
        assert await client.connect("dev-2") == 2
        await client.closed()


async def test_mqtt_5_is_told_so(pki: Pki, fleet: EmbeddedBroker) -> None:
    with pytest.raises(aiomqtt.MqttError, match=r"(?i)protocol|version"):
        async with mqtt(
            pki,
            fleet,
            pki.device(Zone.FLEET, "dev-1"),
            "dev-1",
            protocol=aiomqtt.ProtocolVersion.V5,
        ):
            pass


async def _is_refused(pki: Pki, broker: EmbeddedBroker, pair: Pair | None, client_id: str) -> bool:
    """With TLS 1.3 a client learns of its refusal only by the first read."""
    try:
        async with raw(pki, broker, pair) as client:
            await client.connect(client_id)
    except (EOFError, OSError):
        return True
    return False


async def test_who_may_not_even_speak(
    pki: Pki, claim: EmbeddedBroker, fleet: EmbeddedBroker
) -> None:
    strangers = [
        (claim, None, "dev"),
        (claim, pki.device(Zone.FLEET, "dev"), "dev"),
        (fleet, pki.device(Zone.CLAIM, "dev"), "dev"),
        (fleet, pki.pair("dev", pki.root), "dev"),
        (claim, pki.device(Zone.CLAIM, "muster-service-claim"), "muster-service-claim"),
        (fleet, pki.device(Zone.FLEET, "muster-service-fleet"), "muster-service-fleet"),
        (fleet, pki.service(Zone.CLAIM), "muster-service-claim"),
        (claim, pki.service(Zone.FLEET), "muster-service-fleet"),
        (fleet, pki.pair("dev", pki.operational, days=(-3, -1)), "dev"),
        (fleet, pki.pair("dev", pki.infrastructure), "dev"),
    ]
    for broker, pair, client_id in strangers:
        assert await _is_refused(pki, broker, pair, client_id), (broker.port, client_id)
    assert not await _is_refused(pki, fleet, pki.device(Zone.FLEET, "dev"), "dev")


async def test_a_revoked_device_is_thrown_out_and_kept_out(
    pki: Pki, fleet: EmbeddedBroker, fleet_service: aiomqtt.Client
) -> None:
    revoked, other = pki.device(Zone.FLEET, "dev-1"), pki.device(Zone.FLEET, "dev-2")
    async with raw(pki, fleet, revoked) as live, raw(pki, fleet, other) as bystander:
        will = {"will_flag": True, "will_topic": f"{DEVICE}/dev-1/gone", "will_message": b"x"}
        assert await live.connect("dev-1", **will) == 0
        assert await bystander.connect("dev-2") == 0
        pki.revoke(revoked, Zone.FLEET)
        await fleet.apply_crl()
        await live.closed()
        assert fleet.endings == {Ending.LOCKED_OUT: 1}
        assert await _is_refused(pki, fleet, revoked, "dev-1")
        await bystander.send(b"\xc0\x00")
        assert type(await bystander.packet()).__name__ == "PingRespPacket"
    await fleet_service.publish("muster/v1/fleet/end", b"end", qos=1)
    assert str((await receive(fleet_service)).topic) == "muster/v1/fleet/end", "a will of its own"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_resumed_tls_session_is_locked_out_too(
    pki: Pki, fleet: EmbeddedBroker, version: ssl.TLSVersion
) -> None:
    pair = pki.device(Zone.FLEET, "dev-1")
    context = client_context(pki, pair)
    context.minimum_version = context.maximum_version = version
    device = ResumingClient(context, fleet.port)
    assert await asyncio.to_thread(device.connect, "dev-1") is False, "nothing to resume yet"
    assert await asyncio.to_thread(device.connect, "dev-1") is True, "resumption is worth testing"
    pki.revoke(pair, Zone.FLEET)
    await fleet.apply_crl()
    with pytest.raises((EOFError, OSError)):
        await asyncio.to_thread(device.connect, "dev-1")


class ResumingClient:
    """Connects, and comes back with the TLS session of the time before."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._context = context
        self._port = port
        self._session: ssl.SSLSession | None = None

    def connect(self, client_id: str) -> bool:
        """Sends a CONNECT and waits for its answer; returns whether the session was resumed."""
        with (
            socket.create_connection(("localhost", self._port), timeout=5) as plain,
            self._context.wrap_socket(
                plain, server_hostname="localhost", session=self._session
            ) as tls,
        ):
            tls.sendall(connect_packet(client_id))
            if not tls.recv(4):
                raise EOFError
            self._session = tls.session
            return bool(tls.session_reused)


async def test_disconnect_ends_every_connection_of_a_name(pki: Pki, claim: EmbeddedBroker) -> None:
    pair, other = pki.device(Zone.CLAIM, "batch"), pki.device(Zone.CLAIM, "other")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(pki, claim, pair)) for _ in range(3)]
        for number, client in enumerate(clients):
            assert await client.connect(f"dev-{number}") == 0
        bystander = await stack.enter_async_context(raw(pki, claim, other))
        assert await bystander.connect("dev-1") == 0
        assert await claim.disconnect("batch") == 3
        assert claim.connections == 1
        for client in clients:
            await client.closed()
        assert await claim.disconnect("batch") == 0
        assert not await _is_refused(pki, claim, pair, "dev-1"), "it isn't revoked"


async def test_a_will_follows_a_lost_connection(
    pki: Pki, fleet: EmbeddedBroker, fleet_service: aiomqtt.Client
) -> None:
    will = {"will_flag": True, "will_topic": f"{DEVICE}/dev-1/gone", "will_message": b"bye"}
    async with raw(pki, fleet, pki.device(Zone.FLEET, "dev-1")) as device:
        assert await device.connect("dev-1", **will) == 0
    message = await receive(fleet_service)
    assert (str(message.topic), message.payload) == (f"{DEVICE}/dev-1/gone", b"bye")


async def test_what_was_sent_before_leaving_arrives(
    pki: Pki, claim: EmbeddedBroker, claim_service: aiomqtt.Client
) -> None:
    """amqtt alone forgets what a client sends right before its DISCONNECT."""
    async with raw(pki, claim, pki.device(Zone.CLAIM, "batch")) as device:
        assert await device.connect("dev") == 0
        burst = b"".join(
            PublishPacket.build(
                f"{CLAIM}/batch/dev/enroll", b"%d" % n, None, False, 0, False
            ).to_bytes()
            for n in range(50)
        )
        await device.send(burst + DISCONNECT)
        received = [(await receive(claim_service)).payload for _ in range(50)]
    assert received == [b"%d" % n for n in range(50)]
