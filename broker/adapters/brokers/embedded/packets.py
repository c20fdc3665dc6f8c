"""Packets by amqtt's own codec, so that the guard and the broker behind it can't read one packet
in two ways: what doesn't encode back to the very same bytes is malformed."""

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from amqtt.adapters import BufferReader
from amqtt.mqtt import packet_class
from amqtt.mqtt.connack import ConnackPacket
from amqtt.mqtt.connect import ConnectPacket, ConnectVariableHeader
from amqtt.mqtt.disconnect import DisconnectPacket
from amqtt.mqtt.packet import MQTTFixedHeader, MQTTPacket
from amqtt.mqtt.pingreq import PingReqPacket
from amqtt.mqtt.pingresp import PingRespPacket
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.suback import SubackPacket
from amqtt.mqtt.unsuback import UnsubackPacket

from broker.adapters.brokers.embedded.errors import Ended, Ending

Packet = MQTTPacket[Any, Any, Any]
ResultT = TypeVar("ResultT")

REFUSED_FILTER = 0x80
UNACCEPTABLE_PROTOCOL = 0x01
IDENTIFIER_REJECTED = 0x02
SERVER_UNAVAILABLE = 0x03
NOT_AUTHORIZED = 0x05

DISCONNECT: bytes = DisconnectPacket().to_bytes()
PING_REQUEST: bytes = PingReqPacket().to_bytes()
PING_RESPONSE: bytes = PingRespPacket().to_bytes()

_SUBSCRIBE, _UNSUBSCRIBE = 8, 10
_OPTIONS_BYTES = {_SUBSCRIBE: 1, _UNSUBSCRIBE: 0}
"""What follows each filter (MQTT 3.1.1, sections 3.8.3 and 3.10.3)."""


def decode(frame: bytes) -> Packet:
    """The packet in `frame`, which holds exactly one.

    Raises:
        Ended: MALFORMED when the codec can't read it, or would write it differently.
    """
    packet = _read(frame, _packet)
    require_faithful(packet, frame)
    return packet


def decode_connect(frame: bytes) -> ConnectPacket:
    """The CONNECT in `frame`, still to be checked with `require_faithful`: an empty client id is
    replaced by a random one here, and deserves an answer.

    Raises:
        Ended: MALFORMED when the codec can't read it.
    """
    packet = _read(frame, _packet)
    if not isinstance(packet, ConnectPacket):
        raise Ended(Ending.PROTOCOL, "the first packet is no CONNECT")
    return packet


def decode_connect_head(frame: bytes) -> ConnectVariableHeader:
    """The part of a CONNECT that every version of MQTT writes alike.

    Raises:
        Ended: MALFORMED when the codec can't read it.
    """
    return _read(frame, _connect_head)


def require_faithful(packet: Packet, frame: bytes) -> None:
    """Checks that `packet` is the one reading of `frame`.

    Raises:
        Ended: MALFORMED when it would be written differently.
    """
    try:
        again = packet.to_bytes()
    except Exception as error:  # what was read may be unwritable in any way
        raise Ended(Ending.MALFORMED, type(error).__name__) from error
    if again != frame:
        raise Ended(Ending.MALFORMED, "not encoded the one right way")


def filters_in(frame: bytes, at_most: int) -> int:
    """How many filters a SUBSCRIBE or UNSUBSCRIBE holds, 0 for another packet; counted before the
    codec reads them, since that takes it a second for some ten thousand.

    Raises:
        Ended: TOO_LARGE, when there are more than `at_most`.
    """
    options = _OPTIONS_BYTES.get(frame[0] >> 4)
    if options is None:
        return 0
    count, position = 0, _header_size(frame) + 2
    while position < len(frame):
        count += 1
        if count > at_most:
            raise Ended(Ending.TOO_LARGE, f"more than {at_most} filters in a packet")
        position += 2 + int.from_bytes(frame[position : position + 2]) + options
    return count


def _header_size(frame: bytes) -> int:
    """Of a whole frame: the first byte, and the length up to its first byte below 128."""
    return 2 + next(index for index, byte in enumerate(frame[1:5]) if byte < 0x80)


def connack(code: int) -> bytes:
    """Answers a CONNECT; no session is ever present before."""
    return bytes(ConnackPacket.build(0, code).to_bytes())


def puback(packet_id: int) -> bytes:
    """Acknowledges a PUBLISH of QoS 1."""
    return bytes(PubackPacket.build(packet_id).to_bytes())


def suback(packet_id: int, codes: list[int]) -> bytes:
    """Answers a SUBSCRIBE, one code a filter."""
    return bytes(SubackPacket.build(packet_id, codes).to_bytes())


def unsuback(packet_id: int) -> bytes:
    """Acknowledges an UNSUBSCRIBE."""
    return bytes(UnsubackPacket.build(packet_id).to_bytes())


async def _packet(reader: BufferReader, header: MQTTFixedHeader) -> Packet:
    return await packet_class(header).from_stream(reader, fixed_header=header)


async def _connect_head(reader: BufferReader, header: MQTTFixedHeader) -> ConnectVariableHeader:
    return await ConnectVariableHeader.from_stream(reader, header)


def _read(
    frame: bytes,
    read_rest: Callable[[BufferReader, MQTTFixedHeader], Coroutine[Any, Any, ResultT]],
) -> ResultT:
    try:
        return _at_once(_read_after_header(BufferReader(frame), read_rest))
    except Exception as error:  # hostile bytes can make a codec fail in any way
        raise Ended(Ending.MALFORMED, type(error).__name__) from error


async def _read_after_header(
    reader: BufferReader,
    read_rest: Callable[[BufferReader, MQTTFixedHeader], Coroutine[Any, Any, ResultT]],
) -> ResultT:
    header = await MQTTFixedHeader.from_stream(reader)
    if header is None:
        raise ValueError("no fixed header")
    return await read_rest(reader, header)


def _at_once(work: Coroutine[Any, Any, ResultT]) -> ResultT:
    """Runs a coroutine that reads from memory only, and so never waits."""
    try:
        work.send(None)
    except StopIteration as finished:
        result: ResultT = finished.value
        return result
    work.close()
    raise ValueError("the codec waited for more than one packet")
