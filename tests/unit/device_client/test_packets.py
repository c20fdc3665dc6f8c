"""The device's MQTT: packets as the standard has them, and nothing else."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client import packets
from device_client.packets import (
    MAX_PACKET,
    ConnAck,
    Decoder,
    Malformed,
    PingResp,
    PubAck,
    Publication,
    SubAck,
)


def decoded(data: bytes) -> list[packets.Packet]:
    return list(Decoder().feed(data))


def test_connect() -> None:
    assert packets.connect("lamp", 60) == b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04lamp"


def test_subscribe() -> None:
    assert packets.subscribe(10, ["a/b", "c"]) == b"\x82\x0c\x00\x0a\x00\x03a/b\x01\x00\x01c\x01"


def test_publish() -> None:
    assert packets.publish(10, "a/b", b"hi") == b"\x32\x09\x00\x03a/b\x00\x0ahi"


def test_puback() -> None:
    assert packets.puback(258) == b"\x40\x02\x01\x02"


@pytest.mark.parametrize(
    ("size", "length"), [(118, b"\x7f"), (119, b"\x80\x01"), (16_374, b"\xff\x7f")]
)
def test_lengths(size: int, length: bytes) -> None:
    assert packets.publish(1, "topic", b"x" * size)[1 : 1 + len(length)] == length


@pytest.mark.parametrize(
    ("data", "packet"),
    [
        (b"\x20\x02\x00\x00", ConnAck(0)),
        (b"\x20\x02\x00\x05", ConnAck(5)),
        (b"\x90\x04\x00\x0a\x01\x00", SubAck(10, True)),
        (b"\x90\x04\x00\x0a\x01\x80", SubAck(10, False)),
        (b"\x90\x02\x00\x0a", SubAck(10, False)),
        (b"\x40\x02\x01\x02", PubAck(258)),
        (b"\xd0\x00", PingResp()),
        (b"\x30\x07\x00\x03a/bhi", Publication("a/b", b"hi", None)),
        (b"\x31\x05\x00\x03a/b", Publication("a/b", b"", None)),
        (b"\x3a\x09\x00\x03a/b\x00\x0ahi", Publication("a/b", b"hi", 10)),
    ],
)
def test_what_a_broker_sends(data: bytes, packet: packets.Packet) -> None:
    assert decoded(data) == [packet]


@pytest.mark.parametrize(
    "data",
    [
        b"\x10\x00",
        b"\x00\x00",
        b"\xf0\x00",
        b"\x20\x01\x00",
        b"\x20\x03\x00\x00\x00",
        b"\x90\x01\x00",
        b"\x40\x00",
        b"\x30\x01\x00",
        b"\x30\x03\x00\x05a",
        b"\x32\x03\x00\x01a",
        b"\x34\x05\x00\x01a\x00\x01",
        b"\x30\x03\x00\x01\xff",
        b"\x30\xff\xff\xff\xff",
    ],
)
def test_what_no_broker_sends(data: bytes) -> None:
    with pytest.raises(Malformed):
        decoded(data)


def test_a_packet_that_is_too_large_is_refused_before_it_has_arrived() -> None:
    with pytest.raises(Malformed, match="bytes"):
        decoded(b"\x30\xff\xff\xff\x7f")


def test_the_largest_packet_is_taken() -> None:
    topic = "t" * 10
    packet = packets.publish(1, topic, b"x" * (MAX_PACKET - 14))
    assert decoded(packet) == [Publication(topic, b"x" * (MAX_PACKET - 14), 1)]


@given(
    st.lists(st.tuples(st.text(max_size=9), st.binary(max_size=300)), max_size=5),
    st.lists(st.integers(1, 50), min_size=1),
)
def test_packets_arrive_whole_however_they_are_cut(
    messages: list[tuple[str, bytes]], cuts: list[int]
) -> None:
    stream = b"".join(packets.publish(7, topic, payload) for topic, payload in messages)
    decoder = Decoder()
    arrived: list[packets.Packet] = []
    at = 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        arrived += decoder.feed(stream[at : at + size])
        at += size
    assert arrived == [Publication(topic, payload, 7) for topic, payload in messages]


@given(st.binary(max_size=400))
def test_noise_is_packets_or_malformed(noise: bytes) -> None:
    with suppress(Malformed):
        assert all(isinstance(packet, packets.Packet) for packet in decoded(noise))
