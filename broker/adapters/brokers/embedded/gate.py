"""The guard of one connection: what of each packet goes on, either way. No I/O.

Denied publishes are swallowed and acknowledged, as Mosquitto does: MQTT 3.1.1 has no refusal for
them. A retain flag that may not be set is cleared, so that a client library that always sets it
still works and nothing of a device's is ever kept. QoS 2 ends the connection: the protocol never
needs it, and its handshake would pin memory here. An unsuitable filter is refused with 0x80.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsuback import UnsubackPacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.policy import Rights
from broker.adapters.brokers.embedded.topics import matches
from broker.protocol.limits import MAX_TOPIC

_PUBLISH, _PUBACK, _SUBSCRIBE, _UNSUBSCRIBE, _PINGREQ, _DISCONNECT = 3, 4, 8, 10, 12, 14
_FLAGS: Final = {_PUBACK: 0, _SUBSCRIBE: 2, _UNSUBSCRIBE: 2, _PINGREQ: 0, _DISCONNECT: 0}
_MAX_QOS: Final = 1


@dataclass(frozen=True)
class Passage:
    """What one packet leads to: bytes for the core, bytes for the client, or a farewell."""

    to_core: bytes = b""
    to_client: bytes = b""
    leaving: bool = False


class Gate:
    """Lets through what `rights` grant. One SUBSCRIBE or UNSUBSCRIBE may be with the core at a
    time (`settling`): the core would reorder several, and would queue any number of them."""

    def __init__(
        self, rights: Rights, max_filters: int, on_denied: Callable[[str, str], None]
    ) -> None:
        self._rights = rights
        self._max_filters = max_filters
        self._on_denied = on_denied
        self._filters: set[str] = set()
        self._codes: list[int | None] | None = None
        self._unacknowledged: set[int] = set()

    @property
    def settling(self) -> bool:
        """Whether the core still owes an answer to a SUBSCRIBE or UNSUBSCRIBE."""
        return self._codes is not None

    def from_client(self, frame: bytes) -> Passage:
        """Judges one packet of the client.

        Raises:
            Ended: MALFORMED or PROTOCOL, when the client broke the protocol.
        """
        if frame == packets.PING_REQUEST:
            return Passage(to_client=packets.PING_RESPONSE)
        kind, flags = frame[0] >> 4, frame[0] & 0x0F
        if kind == _PUBLISH:
            return self._publish(packets.decode(frame))
        if kind not in _FLAGS:
            raise Ended(Ending.PROTOCOL, f"packet type {kind} from a client")
        if flags != _FLAGS[kind]:
            raise Ended(Ending.MALFORMED, f"flags {flags} on packet type {kind}")
        packet = packets.decode(frame)
        match packet:
            case SubscribePacket():
                return self._subscribe(packet)
            case UnsubscribePacket():
                return self._unsubscribe(packet)
            case PubackPacket():
                return self._acknowledge(packet, frame)
        return Passage(leaving=True)

    def from_core(self, frame: bytes) -> Passage:
        """Judges one packet of the core: only what the client may read and asked for goes on."""
        packet = packets.decode(frame)
        match packet:
            case PublishPacket():
                return self._deliver(packet, frame)
            case SubackPacket():
                return self._subscribed(packet)
            case UnsubackPacket():
                self._codes = None
                return Passage(to_client=frame)
            case PubackPacket():
                return Passage(to_client=frame)
            case ConnackPacket() if packet.return_code == 0:
                return Passage(to_client=frame)
        raise Ended(Ending.INTERNAL, f"unexpected {type(packet).__name__} from the core")

    def _publish(self, packet: Any) -> Passage:
        topic, qos = packet.topic_name, packet.qos
        if qos > _MAX_QOS:
            raise Ended(Ending.PROTOCOL, f"QoS {qos}")
        if not topic or "\0" in topic or (packet.dup_flag and not qos):
            raise Ended(Ending.MALFORMED, "PUBLISH")
        acknowledgement = packets.puback(_packet_id(packet)) if qos else b""
        if not self._rights.may_publish(topic):
            self._on_denied("publish", topic)
            return Passage(to_client=acknowledgement)
        packet.dup_flag = False
        packet.retain_flag = packet.retain_flag and self._rights.may_retain
        return Passage(to_core=packet.to_bytes())

    def _subscribe(self, packet: SubscribePacket) -> Passage:
        wanted = packet.payload.topics if packet.payload else []
        packet_id = _packet_id(packet)
        if not wanted or any(qos > 2 for _, qos in wanted):
            raise Ended(Ending.MALFORMED, "SUBSCRIBE")
        codes: list[int | None] = []
        granted: list[tuple[str, int]] = []
        for filter_, qos in wanted:
            if self._grants(filter_):
                self._filters.add(filter_)
                granted.append((filter_, min(qos, _MAX_QOS)))
                codes.append(None)
            else:
                self._on_denied("subscribe", filter_)
                codes.append(packets.REFUSED_FILTER)
        if not granted:
            return Passage(
                to_client=packets.suback(packet_id, [packets.REFUSED_FILTER] * len(codes))
            )
        self._codes = codes
        return Passage(to_core=SubscribePacket.build(granted, packet_id).to_bytes())

    def _grants(self, filter_: str) -> bool:
        if len(filter_) > MAX_TOPIC or not self._rights.may_subscribe(filter_):
            return False
        return filter_ in self._filters or len(self._filters) < self._max_filters

    def _subscribed(self, packet: SubackPacket) -> Passage:
        answered = iter(packet.payload.return_codes if packet.payload else [])
        codes = [next(answered) if code is None else code for code in self._codes or []]
        self._codes = None
        return Passage(to_client=packets.suback(_packet_id(packet), codes))

    def _unsubscribe(self, packet: UnsubscribePacket) -> Passage:
        wanted = packet.payload.topics if packet.payload else []
        packet_id = _packet_id(packet)
        if not wanted:
            raise Ended(Ending.MALFORMED, "UNSUBSCRIBE")
        held = [filter_ for filter_ in wanted if filter_ in self._filters]
        if not held:
            return Passage(to_client=packets.unsuback(packet_id))
        self._filters.difference_update(held)
        self._codes = []
        return Passage(to_core=UnsubscribePacket.build(held, packet_id).to_bytes())

    def _acknowledge(self, packet: PubackPacket, frame: bytes) -> Passage:
        """Only what was delivered can be acknowledged, once; the rest isn't the core's to read."""
        packet_id = _packet_id(packet)
        if packet_id not in self._unacknowledged:
            return Passage()
        self._unacknowledged.discard(packet_id)
        return Passage(to_core=frame)

    def _deliver(self, packet: Any, frame: bytes) -> Passage:
        topic = packet.topic_name
        if self._rights.may_read(topic) and any(matches(own, topic) for own in self._filters):
            if packet.qos:
                self._unacknowledged.add(packet.packet_id)
            return Passage(to_client=frame)
        # The core waits for an acknowledgement that the client can't give.
        return Passage(to_core=packets.puback(packet.packet_id) if packet.qos else b"")


def _packet_id(packet: Any) -> int:
    packet_id: int = packet.variable_header.packet_id
    if not packet_id:
        raise Ended(Ending.MALFORMED, "packet id 0")
    return packet_id
