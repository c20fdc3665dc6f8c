"""amqtt behind the guard. When one of these fails after an update of amqtt, its internals have
changed: compare `core.py` with its `Broker` before allowing that version."""

import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from amqtt.broker import Broker
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.core import Core
from broker.adapters.brokers.embedded.pipe import CoreReader, CoreWriter, Outbox
from tests.support.embedded import connect_packet
from tests.support.tasks import Background
from tests.support.waiting import eventually


@pytest.fixture
async def core() -> AsyncIterator[Core]:
    core = Core()
    await core.start()
    yield core
    await core.shutdown()


class Client:
    """A client of the core, without guard or network."""

    def __init__(self, core: Core, session_id: str, **connect: Any) -> None:
        self.core = core
        self.session_id = session_id
        self.reader = CoreReader()
        self.got: list[Any] = []
        self.writer = CoreWriter(
            ("test", 1), lambda f: self.got.append(packets.decode(f)), Outbox(1).room
        )
        self.reader.feed(connect_packet(session_id, keep_alive=0, **connect))

    async def serve(self) -> None:
        """Until the client leaves."""
        await self.core.serve(self.reader, self.writer)
        await self.core.forget(self.session_id)

    def publish(self, topic: str, data: bytes, retain: bool = False) -> None:
        packet = PublishPacket.build(topic, data, None, False, 0, retain)
        self.reader.feed(packet.to_bytes())

    async def subscribe(self, *filters: str, qos: int = 0) -> None:
        before = self.count("SubackPacket")
        self.reader.feed(SubscribePacket.build([(f, qos) for f in filters], 1).to_bytes())
        await eventually(lambda: self.count("SubackPacket") > before)

    def count(self, kind: str) -> int:
        return sum(type(packet).__name__ == kind for packet in self.got)

    def received(self) -> list[tuple[str | None, bytes | None]]:
        return [(p.topic_name, p.data) for p in self.got if isinstance(p, PublishPacket)]


MakeClient = Callable[..., Client]


@pytest.fixture
async def client(core: Core) -> AsyncIterator[MakeClient]:
    background = Background()

    def make(session_id: str, **connect: Any) -> Client:
        made = Client(core, session_id, **connect)
        background.start(made.serve())
        clients.append(made)
        return made

    clients: list[Client] = []
    yield make
    for one in clients:
        one.reader.feed(packets.DISCONNECT)
    await background.finish()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_run_broadcast", ["self", "running_tasks"]),
        ("_del_subscription", ["self", "a_filter", "session"]),
        ("_del_all_subscriptions", ["self", "session"]),
        ("add_subscription", ["self", "subscription", "session"]),
        (
            "_publish_retained_messages_for_subscription",
            ["self", "subscription", "session"],
        ),
        ("_cleanup_session", ["self", "client_id"]),
        ("_get_handler", ["self", "session"]),
        ("external_connected", ["self", "reader", "writer", "listener_name"]),
    ],
)
def test_what_is_overridden_or_called_is_still_there(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(Broker, name)).parameters) == parameters


async def test_a_message_reaches_who_asked_for_it(client: MakeClient) -> None:
    one, two = client("one"), client("two")
    await one.subscribe("a/+")
    two.publish("a/b", b"1")
    two.publish("b/b", b"2")
    two.publish("a/c", b"3")
    await eventually(lambda: len(one.received()) == 2)
    assert one.received() == [("a/b", b"1"), ("a/c", b"3")]


async def test_nobody_gets_what_another_asked_for(client: MakeClient) -> None:
    """amqtt sends a newcomer every retained message that matches anybody's filter."""
    one, two = client("one"), client("two")
    two.publish("a", b"kept", retain=True)
    await one.subscribe("a")
    await eventually(lambda: one.received() == [("a", b"kept")])
    three = client("three")
    await three.subscribe("b")
    two.publish("b", b"live")
    await eventually(lambda: bool(three.received()))
    assert three.received() == [("b", b"live")]


async def test_an_unanswered_retained_message_holds_up_nothing(
    client: MakeClient,
) -> None:
    """amqtt waits five seconds for its PUBACK before it looks at the next SUBSCRIBE."""
    one, two = client("one"), client("two")
    for number in range(3):
        two.publish(f"kept/{number}", b"x", retain=True)
    two.publish("last", b"y", retain=True)
    await two.subscribe("last")
    await eventually(lambda: bool(two.received()))
    await one.subscribe("kept/#", qos=1)
    await one.subscribe("last", qos=1)
    await eventually(lambda: len(one.received()) == 4)


async def test_an_empty_message_clears_what_is_retained(client: MakeClient) -> None:
    one, two = client("one"), client("two")
    two.publish("a", b"kept", retain=True)
    two.publish("a", b"", retain=True)
    two.publish("b", b"kept", retain=True)
    await two.subscribe("b")
    await eventually(lambda: bool(two.received()))
    await one.subscribe("+")
    await eventually(lambda: bool(one.received()))
    assert one.received() == [("b", b"kept")]


async def test_asking_again_changes_the_qos(core: Core, client: MakeClient) -> None:
    """amqtt keeps the first."""
    one = client("one")
    await one.subscribe("a", qos=0)
    await one.subscribe("a", qos=1)
    assert [qos for _, qos in core.subscriptions["a"]] == [1]


async def test_nothing_is_left_of_a_filter_or_a_session(core: Core, client: MakeClient) -> None:
    """amqtt keeps filters that nobody holds any more."""
    one = client("one")
    await one.subscribe("a", "b/+")
    one.reader.feed(UnsubscribePacket.build(["a"], 2).to_bytes())
    await eventually(lambda: one.count("UnsubackPacket") == 1)
    assert list(core.subscriptions) == ["b/+"]
    one.reader.feed(packets.DISCONNECT)
    await eventually(lambda: "one" not in core.sessions)
    assert not core.subscriptions


async def test_a_will_follows_a_lost_connection_only(client: MakeClient) -> None:
    watcher = client("watcher")
    await watcher.subscribe("will/+")
    will = {"will_flag": True, "will_message": b"gone"}
    lost = client("lost", will_topic="will/lost", **will)
    left = client("left", will_topic="will/left", **will)
    await eventually(lambda: lost.count("ConnackPacket") + left.count("ConnackPacket") == 2)
    left.reader.feed(packets.DISCONNECT)
    await eventually(lambda: "left" not in watcher.core.sessions)
    lost.reader.feed_eof()
    await eventually(lambda: bool(watcher.received()))
    assert watcher.received() == [("will/lost", b"gone")]
