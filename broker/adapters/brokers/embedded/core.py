"""amqtt as the message core behind the guard: sessions, fan-out and retained messages.

amqtt 0.12 has no public way to do what is done here, so this file, and no other, overrides its
internals; `tests/unit/adapters/test_embedded_core.py` fails when they change. Each override says
what amqtt does by itself.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Final

from amqtt.broker import Broker, RetainedApplicationMessage
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.session import Session

from broker.adapters.brokers.embedded.packets import REFUSED_FILTER
from broker.adapters.brokers.embedded.pipe import CoreReader, CoreWriter
from broker.adapters.brokers.embedded.topics import FilterTree, literal_prefix, matches

_LISTENER: Final = "default"
_BACKLOG: Final = 256
"""Messages in the core, of one client or of all, beyond which clients are read no further."""


def quieten() -> None:
    """Silences amqtt's loggers: they tell of every packet, and quote what clients sent."""
    for name in ("amqtt", "transitions"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _config() -> BrokerConfig:
    # The guard has authenticated everybody; without this plugin amqtt refuses all.
    plugins = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    listener = ListenerConfig(type=ListenerType.EXTERNAL, bind="guard")
    return BrokerConfig(listeners={_LISTENER: listener}, plugins=plugins)


class Core(Broker):
    """Serves clients that the guard admitted, each under a session id used once."""

    def __init__(self) -> None:
        quieten()
        super().__init__(_config())
        self._tree = FilterTree()
        self._held: dict[str, set[str]] = {}
        self._deliveries: dict[str, set[asyncio.Task[Any]]] = {}

    async def serve(self, reader: CoreReader, writer: CoreWriter) -> None:
        """Serves one client until it says DISCONNECT or `reader` ends."""
        await self.external_connected(reader, writer, _LISTENER)

    def is_busy(self, session_id: str) -> bool:
        """Whether more from this client should wait. (amqtt queues without bounds.)"""
        return self._broadcast_queue.qsize() > _BACKLOG or self._pending(session_id) > _BACKLOG

    def has_settled(self, session_id: str) -> bool:
        """Whether everything that the client published is on its way to the subscribers."""
        return not self._pending(session_id)

    async def forget(self, session_id: str) -> None:
        """Removes every trace of a session; its tasks have ended on return."""
        await self._cleanup_session(session_id)
        deliveries = self._deliveries.pop(session_id, set())
        for task in deliveries:
            task.cancel()
        await asyncio.gather(*deliveries, return_exceptions=True)

    def _pending(self, session_id: str) -> int:
        session, _ = self._sessions.get(session_id, (None, None))
        return session.delivered_message_queue.qsize() if session else 0

    async def add_subscription(self, subscription: tuple[str, int], session: Session) -> int:
        """Replaces an equal filter. (amqtt keeps the old one with its QoS.)"""
        filter_, _ = subscription
        self._del_subscription(filter_, session)
        code = await super().add_subscription(subscription, session)
        if code != REFUSED_FILTER:
            self._tree.add(filter_)
            self._held.setdefault(session.client_id or "", set()).add(filter_)
        return code

    def _del_subscription(self, a_filter: str, session: Session) -> int:
        """Leaves nothing behind. (amqtt keeps a filter that nobody holds for ever.)"""
        deleted = super()._del_subscription(a_filter, session)
        if not self._subscriptions.get(a_filter):
            self._subscriptions.pop(a_filter, None)
            self._tree.discard(a_filter)
        if deleted:
            self._held.get(session.client_id or "", set()).discard(a_filter)
        return deleted

    async def _del_all_subscriptions(self, session: Session) -> None:
        """Touches the session's own filters only. (amqtt walks over everybody's.)"""
        for filter_ in list(self._held.get(session.client_id or "", ())):
            self._del_subscription(filter_, session)
        self._held.pop(session.client_id or "", None)

    async def _publish_retained_messages_for_subscription(
        self, subscription: tuple[str, int], session: Session
    ) -> None:
        """Sends what the session asked for, no faster than it reads, and doesn't wait for it.

        (amqtt sends every newcomer what anybody's filters match, all at once, and holds up the
        client's other packets until it has acknowledged all of it.)
        """
        filter_, qos = subscription
        if filter_ not in self._held.get(session.client_id or "", ()):
            return
        prefix = literal_prefix(filter_)
        due = [
            kept
            for topic, kept in self._retained_messages.items()
            if topic.startswith(prefix) and matches(filter_, topic)
        ]
        if due:
            self._own(session.client_id or "", self._send_retained(session, due, qos))

    async def _send_retained(
        self, session: Session, due: list[RetainedApplicationMessage], qos: int
    ) -> None:
        for kept in due:
            self._deliver(session, kept.topic, kept.data, min(qos, kept.qos or 0), retain=True)
            await asyncio.sleep(0)  # the delivery writes meanwhile
            handler = self._get_handler(session)
            if handler is not None and isinstance(handler.writer, CoreWriter):
                await handler.writer.room()

    async def _run_broadcast(self, running_tasks: Any) -> None:
        """Finds the receivers by an index. (amqtt compares with every filter there is, and keeps
        finished deliveries in `running_tasks` behind one that isn't acknowledged.)"""
        message = await self._broadcast_queue.get()
        topic = message["topic"]
        for filter_ in self._tree.matching(topic):
            for session, granted_qos in self._subscriptions[filter_]:
                qos = message.get("qos", granted_qos)
                self._deliver(session, topic, message["data"], min(qos, granted_qos), retain=False)

    def _deliver(self, session: Session, topic: str, data: Any, qos: int, *, retain: bool) -> None:
        handler = self._get_handler(session)
        if handler is None or session.transitions.state != "connected":
            return
        self._own(session.client_id or "", handler.mqtt_publish(topic, data, qos, retain))

    def _own(self, session_id: str, delivery: Coroutine[Any, Any, Any]) -> None:
        """Runs a delivery in a task that ends with its session."""
        task = asyncio.ensure_future(delivery)
        self._deliveries.setdefault(session_id, set()).add(task)
        task.add_done_callback(self._delivered(session_id))

    def _delivered(self, session_id: str) -> Callable[[asyncio.Task[Any]], None]:
        def done(task: asyncio.Task[Any]) -> None:
            if not task.cancelled():
                task.exception()  # an unacknowledged delivery: QoS 1 is a hop, not a promise
            self._deliveries.get(session_id, set()).discard(task)

        return done
