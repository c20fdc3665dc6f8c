"""What the fleet's broker retains outlives it: the service publishes again what was forgotten, and
nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from broker.composition.registries import open_registry
from broker.protocol.names import DeviceId
from broker.protocol.topics import (
    RETAINED_MARK,
    TRUST_BUNDLE,
    Desired,
    desired_topic,
    metadata_topic,
)
from broker.protocol.zones import Zone
from broker.settings import BrokerKind
from tests.support.acting import joined
from tests.support.certificates import Client
from tests.support.peers import Peer, peer
from tests.support.stack import Stack
from tests.support.waiting import eventually

TIMESTAMP = metadata_topic("timestamp.json")


@pytest.fixture
async def lamp(stack: Stack, tmp_path: Path) -> Client:
    """A member of the fleet."""
    await stack.installation.standard([])
    (client,) = await joined(stack, tmp_path, "A1")
    return client


def order_topic(client: Client) -> str:
    return desired_topic(DeviceId(client.name), Desired.ROTATION)


async def retain(stack: Stack, messages: dict[str, bytes]) -> None:
    async with open_registry(stack.home, stack.installation.settings) as registry:
        await registry.write(lambda tx: tx.retain(messages))


@asynccontextmanager
async def listening(stack: Stack, client: Client) -> AsyncIterator[Peer]:
    """The device, subscribed to all that is retained for it."""
    async with peer(stack.ports[Zone.FLEET], client) as connection:
        await connection.hear(order_topic(client), TRUST_BUNDLE, TIMESTAMP)
        yield connection


async def is_told(stack: Stack, client: Client, expected: dict[str, bytes]) -> bool:
    """Whether a device that connects now is told this, from the broker's memory."""
    async with listening(stack, client) as connection:
        try:
            heard = [await connection.next(within=1.0) for _ in expected]
        except TimeoutError:
            return False
    told = {message.topic: message.payload for message in heard if message.retained}
    return told == expected


async def lose_memory(stack: Stack) -> None:
    """The broker dies by kill -9; an embedded one ends with its service."""
    if stack.plan.brokers is BrokerKind.MOSQUITTO:
        await stack.brokers[Zone.FLEET].restart()
    else:
        await stack.stop_service()
        await stack.start_service()


async def test_it_comes_to_who_listens_and_to_who_comes_later(stack: Stack, lamp: Client) -> None:
    messages = {order_topic(lamp): b"order", TRUST_BUNDLE: b"anchors", TIMESTAMP: b"tuf"}
    async with listening(stack, lamp) as connection:
        await retain(stack, messages)
        heard = [await connection.next() for _ in messages]
    assert {message.topic: message.payload for message in heard} == messages
    await eventually(lambda: is_told(stack, lamp, messages))


async def test_a_broker_that_forgot_is_told_again(stack: Stack, lamp: Client) -> None:
    messages = {order_topic(lamp): b"order", TRUST_BUNDLE: b"anchors", TIMESTAMP: b"tuf"}
    await retain(stack, messages)
    await eventually(lambda: is_told(stack, lamp, messages))
    for _ in range(2):
        await lose_memory(stack)
        await eventually(lambda: is_told(stack, lamp, messages))


async def test_what_was_taken_back_stays_so(stack: Stack, lamp: Client) -> None:
    await retain(stack, {order_topic(lamp): b"order", TIMESTAMP: b"tuf"})
    await retain(stack, {order_topic(lamp): b""})
    await eventually(lambda: is_told(stack, lamp, {TIMESTAMP: b"tuf"}))
    await lose_memory(stack)
    await eventually(lambda: is_told(stack, lamp, {TIMESTAMP: b"tuf"}))
    async with peer(stack.ports[Zone.FLEET], lamp) as connection:
        await connection.hear(order_topic(lamp))
        with pytest.raises(TimeoutError):
            await connection.next(within=0.5)


async def test_what_changed_while_the_broker_was_away_is_told_when_it_is_back(
    stack: Stack, lamp: Client
) -> None:
    await retain(stack, {order_topic(lamp): b"old", TIMESTAMP: b"tuf"})
    await eventually(lambda: is_told(stack, lamp, {order_topic(lamp): b"old", TIMESTAMP: b"tuf"}))
    expected = {order_topic(lamp): b"new", TIMESTAMP: b"tuf"}
    if stack.plan.brokers is BrokerKind.MOSQUITTO:
        await stack.brokers[Zone.FLEET].kill()
        await retain(stack, {order_topic(lamp): b"new"})
        await stack.brokers[Zone.FLEET].restart()
    else:
        await stack.stop_service()
        await retain(stack, {order_topic(lamp): b"new"})
        await stack.start_service()
    await eventually(lambda: is_told(stack, lamp, expected))


async def test_no_device_may_write_it_or_read_the_mark(stack: Stack, lamp: Client) -> None:
    await retain(stack, {TIMESTAMP: b"tuf"})
    await eventually(lambda: is_told(stack, lamp, {TIMESTAMP: b"tuf"}))
    for topic in (TIMESTAMP, order_topic(lamp), RETAINED_MARK):
        async with peer(stack.ports[Zone.FLEET], lamp) as connection:
            await connection.attempt(topic, b"forged", retain=True)
    async with listening(stack, lamp) as connection:
        await connection.hear(RETAINED_MARK)
        heard = await connection.next()
        assert (heard.topic, heard.payload) == (TIMESTAMP, b"tuf")
        with pytest.raises(TimeoutError):
            await connection.next(within=0.5)


@pytest.mark.parametrize("brokers", [BrokerKind.MOSQUITTO], ids=str)
async def test_a_service_that_comes_back_repeats_nothing_to_a_broker_that_remembers(
    stack: Stack, lamp: Client
) -> None:
    """A fleet of a million isn't told everything anew because its service was restarted."""
    messages = {order_topic(lamp): b"order", TRUST_BUNDLE: b"anchors"}
    await retain(stack, messages)
    await eventually(lambda: is_told(stack, lamp, messages))
    async with listening(stack, lamp) as connection:
        assert {(await connection.next()).topic for _ in messages} == set(messages)
        for round_ in range(2):
            await stack.stop_service()
            await stack.start_service()
            # What is new is the first thing that is heard, but for what had just been published
            # when the service was stopped: the mark hadn't.
            await retain(stack, {TIMESTAMP: f"tuf {round_}".encode()})
            heard = await connection.next()
            if round_ and heard.payload == f"tuf {round_ - 1}".encode():
                heard = await connection.next()
            assert (heard.topic, heard.payload) == (TIMESTAMP, f"tuf {round_}".encode())


async def test_the_same_again_isn_t_published(stack: Stack, lamp: Client) -> None:
    async with listening(stack, lamp) as connection:
        await retain(stack, {TIMESTAMP: b"tuf"})
        assert (await connection.next()).topic == TIMESTAMP
        await retain(stack, {TIMESTAMP: b"tuf"})
        await retain(stack, {TRUST_BUNDLE: b"anchors"})
        assert (await connection.next()).topic == TRUST_BUNDLE
