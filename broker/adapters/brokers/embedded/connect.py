"""The vetting of CONNECT: who the client is, and what of its wishes goes on to the core."""

from dataclasses import dataclass

from amqtt.mqtt.connect import ConnectPacket, ConnectPayload, ConnectVariableHeader

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.policy import Identity, Rights, rights_of
from broker.protocol.names import is_name
from broker.protocol.zones import Zone

_CONNECT = 0x10
_PROTOCOL_LEVEL = 4
_CLEAN_SESSION = 0x02


@dataclass(frozen=True)
class Will:
    """What is published for a client that vanishes."""

    topic: str
    message: bytes
    qos: int
    retain: bool


@dataclass(frozen=True)
class Admission:
    """A CONNECT that is in order. `keep_alive_s` is 0 when the client wants none."""

    identity: Identity
    rights: Rights
    keep_alive_s: int
    will: Will | None

    def for_core(self, session_id: str) -> bytes:
        """The CONNECT that the core gets.

        Always a clean session under an id that no client chose, without name or password: the core
        trusts whatever session it finds, so it must never find one. No keepalive: the guard's is
        the one that holds.
        """
        header = ConnectVariableHeader(_CLEAN_SESSION, 0)
        payload = ConnectPayload(client_id=session_id)
        if self.will is not None:
            header.will_flag = True
            header.will_qos = self.will.qos
            header.will_retain_flag = self.will.retain
            payload.will_topic = self.will.topic
            payload.will_message = self.will.message
        return ConnectPacket(variable_header=header, payload=payload).to_bytes()


def vet_connect(frame: bytes, zone: Zone, name: str, is_service: bool) -> Admission:
    """Judges the first packet of a client whose certificate proved `name`.

    Raises:
        Ended: MALFORMED or PROTOCOL when it is no proper CONNECT; CONNECT_REFUSED, with the
            CONNACK as farewell, when it is one that isn't allowed.
    """
    if frame[0] != _CONNECT:
        raise Ended(Ending.PROTOCOL, "the first packet is no CONNECT")
    _require_version(frame)
    packet = packets.decode_connect(frame)
    client_id = packet.client_id or ""
    if packet.client_id_is_random or not is_name(client_id):
        raise _refused(packets.IDENTIFIER_REJECTED, "client id isn't a name")
    packets.require_faithful(packet, frame)
    identity = Identity(zone, name, client_id, is_service)
    if zone is Zone.FLEET and not is_service and client_id != name:
        raise _refused(packets.IDENTIFIER_REJECTED, "client id isn't the certificate's name")
    if packet.reserved_flag:
        raise Ended(Ending.MALFORMED, "reserved flag of CONNECT")
    rights = rights_of(identity)
    return Admission(identity, rights, packet.keep_alive, _vet_will(packet, rights))


def _require_version(frame: bytes) -> None:
    """Looks at the version before the rest, which other versions write differently."""
    header = packets.decode_connect_head(frame)
    if header.proto_name not in ("MQTT", "MQIsdp"):
        raise Ended(Ending.MALFORMED, "protocol name")
    if header.proto_name != "MQTT" or header.proto_level != _PROTOCOL_LEVEL:
        raise _refused(packets.UNACCEPTABLE_PROTOCOL, f"protocol level {header.proto_level}")


def _vet_will(packet: ConnectPacket, rights: Rights) -> Will | None:
    if not packet.will_flag:
        if packet.will_qos or packet.will_retain_flag:
            raise Ended(Ending.MALFORMED, "will flags without a will")
        return None
    topic = packet.will_topic or ""
    if packet.will_qos > 1 or not rights.may_publish(topic):
        raise _refused(packets.NOT_AUTHORIZED, f"will on {topic[:64]!r}")
    return Will(
        topic=topic,
        message=bytes(packet.will_message or b""),
        qos=packet.will_qos,
        retain=packet.will_retain_flag and rights.may_retain,
    )


def _refused(code: int, detail: str) -> Ended:
    return Ended(Ending.CONNECT_REFUSED, detail, farewell=packets.connack(code))
