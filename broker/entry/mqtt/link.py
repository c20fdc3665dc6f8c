"""The service's connection to one zone's broker: requests come in, answers go out.

It reconnects for as long as it runs. A request is acknowledged only after it was handled, so a
service that is killed meanwhile leaves it to the device's repetition, never to an answer that was
lost half-way.
"""

import asyncio
import random
import secrets
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import aiomqtt
import structlog
from paho.mqtt.client import MQTTMessage
from paho.mqtt.reasoncodes import ReasonCode

from broker.entry.mqtt.inbox import Arrived, Inbox
from broker.entry.mqtt.publishing import Messages, Publishing
from broker.ports.brokers import PublishError
from broker.ports.registry import RegistryError
from broker.protocol.messages import Endpoint
from broker.protocol.topics import RETAINED_MARK
from broker.protocol.zones import Zone

_log = structlog.get_logger(__name__)

_KEEPALIVE_S = 20
_TIMEOUT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_SHORTEST_LIFE_S = 5.0
_MARK_TIMEOUT_S = 2.0
"""A broker that has the mark delivers it at once after the subscription; MQTT doesn't say that
there is none."""
_IN_FLIGHT = 1000
"""Answers on their way at once. paho counts them; the broker's own limit is lower."""


@dataclass(frozen=True)
class LinkTls:
    """What the service shows a broker, and by what it knows the broker."""

    certificate: Path
    key: Path
    anchors: Path

    def context(self) -> ssl.SSLContext:
        """A context that authenticates both sides; reads files."""
        context = ssl.create_default_context(cafile=str(self.anchors))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class LinkSettings:
    """Which broker, as whom, and what to listen to."""

    zone: Zone
    broker: Endpoint
    tls: LinkTls
    name: str
    """The service's name in this zone, which its certificate carries."""
    subscription: str
    concurrent: int
    """How many requests may be in hand at once."""


class SubscriptionRefusedError(Exception):
    """The broker lets the service in, and won't let it hear."""

    code = "subscription_refused"

    def __init__(self, zone: Zone, topic: str, name: str) -> None:
        super().__init__(f"the {zone} broker refuses the subscription to {topic}")
        self.remedy = f"let {name} subscribe to it in the broker's access control list"


class BrokerLink:
    """One zone's connection; `run` keeps it up."""

    def __init__(
        self,
        settings: LinkSettings,
        handle: Callable[[Zone, str, bytes], Awaitable[None]],
        on_connected: Callable[[Zone], Awaitable[object]],
    ) -> None:
        """`handle` answers one request and doesn't raise; `on_connected` publishes what waits."""
        self._settings = settings
        self._handle = handle
        self._on_connected = on_connected
        self._client: aiomqtt.Client | None = None
        self._publishing: Publishing | None = None
        self._inbox = Inbox(settings.concurrent, self._handle_and_acknowledge)
        self._connected_at: float | None = None
        self._session = 0
        self._mark = 0
        self._mark_known = asyncio.Event()
        self.connected = asyncio.Event()
        """Set while requests are heard: the broker has granted what was subscribed to."""

    @property
    def is_connected(self) -> bool:
        """Whether requests are heard now."""
        return self.connected.is_set()

    @property
    def session(self) -> int | None:
        """The number of the connection; none while there isn't any."""
        return self._session if self._client is not None else None

    async def mark(self) -> int:
        """The number that was retained at `RETAINED_MARK` when this connection began, or 0.

        Raises:
            PublishError: there is no connection.
        """
        self._connected()
        with suppress(TimeoutError):
            async with asyncio.timeout(_MARK_TIMEOUT_S):
                await self._mark_known.wait()
        return self._mark

    async def publish(self, topic: str, payload: bytes) -> None:
        """Returns when the broker has the message.

        Raises:
            PublishError: there is no connection, or it ended before the broker said so.
        """
        await self._connected().publish(topic, payload)

    async def retain(self, messages: Messages) -> None:
        """Has the broker retain some hundreds of messages, in this order; returns when it has all.

        Raises:
            PublishError: there is no connection, or it ended before the broker said so.
        """
        await self._connected().retain(messages)

    def _connected(self) -> Publishing:
        if self._publishing is None:
            raise PublishError(f"not connected to the {self._settings.zone} broker")
        return self._publishing

    async def run(self) -> None:
        """Connects, and connects again, until cancelled."""
        pause = _FIRST_PAUSE_S
        async with asyncio.TaskGroup() as handlers:
            while True:
                try:
                    await self._serve(handlers)
                except (aiomqtt.MqttError, OSError) as error:
                    told = str(error) or repr(error)
                    _log.warning("broker_unreachable", zone=self._settings.zone, error=told)
                except SubscriptionRefusedError as error:
                    _log.error(error.code, error=str(error), remedy=error.remedy)
                pause = _FIRST_PAUSE_S if self._lasted() else min(pause * 2, _LONGEST_PAUSE_S)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter

    def _lasted(self) -> bool:
        """Whether the connection that has ended was a real one. One that ends at once, again and
        again, is most likely taken over by another service of the same name."""
        since, now = self._connected_at, asyncio.get_running_loop().time()
        return since is not None and now - since > _SHORTEST_LIFE_S

    async def _serve(self, handlers: asyncio.TaskGroup) -> None:
        self._connected_at = None
        tls = await asyncio.to_thread(self._settings.tls.context)
        async with self._connect(tls) as client:
            paho = client._client
            publishing = Publishing(paho)
            # aiomqtt has a queue, a task and an iterator for each message; paho hands it over.
            paho.on_message = lambda _paho, _data, message: self._take(message, handlers)
            self._client, self._publishing = client, publishing
            self._session += 1
            self._mark, self._mark_known = 0, asyncio.Event()
            try:
                await self._subscribe(client, self._settings.subscription)
                if self._settings.zone is Zone.FLEET:
                    await self._subscribe(client, RETAINED_MARK)
                self._connected_at = asyncio.get_running_loop().time()
                self.connected.set()
                _log.info("broker_connected", zone=self._settings.zone)
                handlers.create_task(self._publish_what_waits(client))
                async for _ in client.messages:  # there are none here; it ends with the connection
                    pass
            finally:
                self.connected.clear()
                self._client = self._publishing = paho.on_message = None
                publishing.end()
                self._inbox.forget()

    async def _subscribe(self, client: aiomqtt.Client, topic: str) -> None:
        # A refusal is in the codes (OASIS MQTT 3.1.1, section 3.9.3); aiomqtt doesn't raise it.
        for granted in await client.subscribe(topic, qos=1):
            if isinstance(granted, ReasonCode) and granted.is_failure:
                raise SubscriptionRefusedError(self._settings.zone, topic, self._settings.name)

    def _take(self, message: MQTTMessage, handlers: asyncio.TaskGroup) -> None:
        if message.topic == RETAINED_MARK:
            self._learn_mark(message)
        else:
            self._inbox.take(message, self._session, handlers)

    def _learn_mark(self, message: MQTTMessage) -> None:
        if message.retain and message.payload.isdigit():
            self._mark = int(message.payload)
        self._mark_known.set()
        self._acknowledge(message.mid, self._session)

    async def _publish_what_waits(self, client: aiomqtt.Client) -> None:
        """Tries for as long as the connection lasts: the registry may be away as well."""
        pause = _FIRST_PAUSE_S
        while self._client is client:
            try:
                await self._on_connected(self._settings.zone)
            except (PublishError, RegistryError) as error:
                _log.warning("outbox_waits", zone=self._settings.zone, error=str(error))
            else:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _connect(self, tls: ssl.SSLContext) -> aiomqtt.Client:
        client = aiomqtt.Client(
            self._settings.broker.host,
            self._settings.broker.port,
            identifier=_client_id(self._settings),
            clean_session=True,
            keepalive=_KEEPALIVE_S,
            timeout=_TIMEOUT_S,
            tls_context=tls,
            max_inflight_messages=_IN_FLIGHT,
            # Without it Nagle's algorithm holds each small answer back for the previous one's ack.
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
        )
        # aiomqtt has no public way to acknowledge after handling; paho, beneath it, has.
        client._client.manual_ack_set(True)
        # It would put together a line for each packet, which nobody reads.
        client._client.disable_logger()
        return client

    async def _handle_and_acknowledge(self, arrived: Arrived) -> None:
        if not arrived.retained:  # a request is an event; a retained one is somebody's mistake
            await self._handle(self._settings.zone, arrived.topic, arrived.payload)
        self._acknowledge(arrived.mid, arrived.session)

    def _acknowledge(self, mid: int, session: int) -> None:
        # The id is of its connection: after a reconnect it would acknowledge another message.
        if self._client is not None and self._session == session:
            self._client._client.ack(mid, qos=1)


def _client_id(settings: LinkSettings) -> str:
    """One that nobody can guess, because a second connection with it would end the first: claimants
    choose any client id, and a device's is its certificate's name, which a stolen key forges."""
    return f"{settings.name}-{secrets.token_hex(8)}"
