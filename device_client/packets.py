"""The part of MQTT 3.1.1 that a device speaks: QoS 0 and 1, as a client, without I/O.

Sections are those of the OASIS standard. What a broker sends is bounded before it's kept: one that
was taken over can't fill a device's memory.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from broker.protocol import limits

MAX_PACKET: Final = max(limits.MAX_ANSWER, limits.MAX_METADATA) + limits.MAX_TOPIC + 16
"""The largest packet that is taken, in bytes."""

PINGREQ: Final = b"\xc0\x00"
DISCONNECT: Final = b"\xe0\x00"
_QOS_1: Final = 0b10
_CLEAN_SESSION: Final = 0b10
_PROTOCOL: Final = b"\x00\x04MQTT\x04"
_LENGTH_BYTES: Final = 4
_SUBSCRIPTION_FAILED: Final = 0x80


class _Type(IntEnum):
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    SUBACK = 9
    PINGRESP = 13


class Malformed(Exception):
    """The broker sent something that isn't MQTT 3.1.1, or more than is taken."""


@dataclass(frozen=True)
class ConnAck:
    """The broker's answer to CONNECT; 0 is acceptance (3.2.2.3)."""

    code: int


@dataclass(frozen=True)
class SubAck:
    """The broker's answer to SUBSCRIBE: whether it took all subscriptions."""

    packet_id: int
    granted: bool


@dataclass(frozen=True)
class PubAck:
    """The broker's answer to a publication with QoS 1."""

    packet_id: int


@dataclass(frozen=True)
class Publication:
    """A message. It has a packet id if it must be acknowledged."""

    topic: str
    payload: bytes
    packet_id: int | None


@dataclass(frozen=True)
class PingResp:
    """The broker is there."""


Packet = ConnAck | SubAck | PubAck | Publication | PingResp


def connect(client_id: str, keepalive_s: int) -> bytes:
    """A CONNECT with a clean session; the certificate says who we are (3.1)."""
    return _packet(
        0x10, _PROTOCOL, bytes([_CLEAN_SESSION]), struct.pack("!H", keepalive_s), _text(client_id)
    )


def subscribe(packet_id: int, topics: Sequence[str]) -> bytes:
    """A SUBSCRIBE with QoS 1 for all topics (3.8)."""
    filters = [_text(topic) + b"\x01" for topic in topics]
    return _packet(0x82, struct.pack("!H", packet_id), *filters)


def publish(packet_id: int, topic: str, payload: bytes) -> bytes:
    """A PUBLISH with QoS 1, not retained (3.3)."""
    return _packet(0x30 | _QOS_1, _text(topic), struct.pack("!H", packet_id), payload)


def puback(packet_id: int) -> bytes:
    """The acknowledgement of a publication (3.4)."""
    return _packet(0x40, struct.pack("!H", packet_id))


class Decoder:
    """Cuts what arrives into packets, however the network has cut it."""

    def __init__(self) -> None:
        """Nothing has arrived yet."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """The packets that are complete now.

        Raises:
            Malformed: the connection is of no use any more.
        """
        self._buffer += data
        while (extent := self._extent()) is not None:
            start, end = extent
            if len(self._buffer) < end:
                return
            first, body = self._buffer[0], bytes(self._buffer[start:end])
            del self._buffer[:end]
            yield _decoded(first, body)

    def _extent(self) -> tuple[int, int] | None:
        """Where the first packet's body starts and ends, once its length is known (2.2.3)."""
        length = 0
        for index in range(_LENGTH_BYTES):
            if len(self._buffer) < index + 2:
                return None
            digit = self._buffer[index + 1]
            length |= (digit & 0x7F) << (7 * index)
            if digit < 0x80:
                if length > MAX_PACKET:
                    raise Malformed(f"a packet of {length} bytes, where {MAX_PACKET} are taken")
                return index + 2, index + 2 + length
        raise Malformed("a packet's length has more than four bytes")


def _decoded(first: int, body: bytes) -> Packet:
    try:
        match first >> 4:
            case _Type.CONNACK:
                return ConnAck(struct.unpack("!BB", body)[1])
            case _Type.PUBLISH:
                return _publication(first, body)
            case _Type.PUBACK:
                return PubAck(struct.unpack("!H", body)[0])
            case _Type.SUBACK:
                granted = len(body) > 2 and _SUBSCRIPTION_FAILED not in body[2:]
                return SubAck(struct.unpack_from("!H", body)[0], granted)
            case _Type.PINGRESP:
                return PingResp()
            case other:
                raise Malformed(f"a packet of type {other}, which isn't for clients")
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"a packet of type {first >> 4}: {error}") from error


def _publication(first: int, body: bytes) -> Publication:
    (length,) = struct.unpack_from("!H", body)
    at = 2 + length
    if len(body) < at:
        raise Malformed("a topic that is longer than its packet")
    topic = body[2:at].decode()
    match first >> 1 & 0b11:
        case 0:
            return Publication(topic, body[at:], None)
        case 1:
            (packet_id,) = struct.unpack_from("!H", body, at)
            return Publication(topic, body[at + 2 :], packet_id)
        case qos:
            raise Malformed(f"a publication with QoS {qos}, which wasn't asked for")


def _packet(first: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return bytes([first]) + _length(len(body)) + body


def _length(number: int) -> bytes:
    digits = bytearray()
    while True:
        number, digit = divmod(number, 0x80)
        digits.append(digit | 0x80 if number else digit)
        if not number:
            return bytes(digits)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("!H", len(encoded)) + encoded
