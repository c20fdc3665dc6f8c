"""Clients of a broker, as aiomqtt makes them: real TLS, MQTT 3.1.1, QoS 1."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiomqtt

from tests.support.certificates import Client

PATIENCE_S: Final = 60.0
_CONNECT_S: Final = 30.0


@dataclass(frozen=True)
class Heard:
    """A message that arrived."""

    topic: str
    payload: bytes
    retained: bool = False


class Peer:
    """One connection; what arrives waits in order."""

    def __init__(self, mqtt: aiomqtt.Client) -> None:
        self._mqtt = mqtt
        self._inbox: asyncio.Queue[Heard] = asyncio.Queue()
        self._ended = asyncio.Event()

    async def hear(self, *filters: str) -> None:
        """Subscribes; a refusal is no error, because it isn't one for an attacker either."""
        for wanted in filters:
            await self._mqtt.subscribe(wanted, qos=1)

    async def say(self, topic: str, payload: bytes = b"", retain: bool = False) -> None:
        """Publishes, and returns when the broker has acknowledged."""
        await self._mqtt.publish(topic, payload, qos=1, retain=retain)

    async def attempt(self, topic: str, payload: bytes = b"", retain: bool = False) -> None:
        """Publishes what isn't allowed; a broker may ignore it or end the connection."""
        saying = asyncio.create_task(self.say(topic, payload, retain))
        ending = asyncio.create_task(self._ended.wait())
        # An acknowledgement that an ended connection can't bring isn't waited for.
        done, others = await asyncio.wait({saying, ending}, return_when=asyncio.FIRST_COMPLETED)
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if saying in done and not isinstance(saying.exception(), aiomqtt.MqttError):
            await saying

    async def next(self, within: float = PATIENCE_S) -> Heard:
        """The oldest message that wasn't looked at yet; TimeoutError when none comes."""
        async with asyncio.timeout(within):
            return await self._inbox.get()

    async def all_until(self, last: bytes) -> list[Heard]:
        """Everything up to the message with the payload `last`, which isn't a part of it."""
        heard = []
        while (message := await self.next()).payload != last:
            heard.append(message)
        return heard

    async def ended(self, within: float = PATIENCE_S) -> None:
        """Returns when the connection has ended; TimeoutError when it hasn't."""
        async with asyncio.timeout(within):
            await self._ended.wait()

    async def listen(self) -> None:
        """Collects until the connection ends."""
        try:
            async for message in self._mqtt.messages:
                payload = message.payload
                assert isinstance(payload, bytes)
                heard = Heard(str(message.topic), payload, bool(message.retain))
                self._inbox.put_nowait(heard)
        except aiomqtt.MqttError:
            self._ended.set()


@asynccontextmanager
async def peer(
    port: int,
    client: Client,
    client_id: str | None = None,
    *,
    username: str | None = None,
    will: aiomqtt.Will | None = None,
    clean_session: bool = True,
    within: float = _CONNECT_S,
) -> AsyncIterator[Peer]:
    """`client` connected, by default under its own name.

    Raises:
        aiomqtt.MqttError: it is refused.
    """
    mqtt = aiomqtt.Client(
        "localhost",
        port,
        identifier=client.name if client_id is None else client_id,
        username=username,
        protocol=aiomqtt.ProtocolVersion.V311,
        clean_session=clean_session,
        timeout=within,
        tls_context=await asyncio.to_thread(client.context),
        will=will,
        socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
    )
    async with contextlib.AsyncExitStack() as stack:
        await mqtt.__aenter__()
        stack.push_async_callback(_leave, mqtt)
        connected = Peer(mqtt)
        listening = asyncio.create_task(connected.listen())
        stack.push_async_callback(_cancel, listening)
        yield connected


async def _leave(mqtt: aiomqtt.Client) -> None:
    # Leaving a connection that the broker has ended is an error to aiomqtt.
    with contextlib.suppress(aiomqtt.MqttError):
        await mqtt.__aexit__(None, None, None)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
