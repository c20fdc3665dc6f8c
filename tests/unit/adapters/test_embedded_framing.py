"""Packets out of a stream, whole or not at all; and one reading of each."""

from itertools import pairwise
from typing import Any

import pytest
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.framing import FrameSplitter
from broker.adapters.brokers.embedded.packets import decode, filters_in

FRAMES = st.builds(
    lambda topic, payload, retain: PublishPacket.build(
        topic, payload, None, False, 0, retain
    ).to_bytes(),
    st.text("abc/", min_size=1, max_size=200),
    st.binary(max_size=300),
    st.booleans(),
)


def _drain(splitter: FrameSplitter) -> list[bytes]:
    frames = []
    while (frame := splitter.next_frame()) is not None:
        frames.append(frame)
    return frames


@given(st.lists(FRAMES, max_size=5), st.lists(st.integers(0, 1500), max_size=8))
def test_any_cut_of_the_stream_gives_the_same_packets(frames: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(frames)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    splitter = FrameSplitter(limit=1000)
    found = []
    for start, end in pairwise(edges):
        splitter.feed(stream[start:end])
        found += _drain(splitter)
    assert found == frames


@given(st.binary(max_size=64))
def test_garbage_ends_or_waits_and_never_fails_otherwise(data: bytes) -> None:
    splitter = FrameSplitter(limit=32)
    splitter.feed(data)
    endings = set()
    try:
        for frame in _drain(splitter):
            assert len(frame) <= 32
            decode(frame)
    except Ended as ended:
        endings.add(ended.ending)
    assert endings <= {Ending.MALFORMED, Ending.TOO_LARGE}


@pytest.mark.parametrize("size", [100, 127, 128, 16_383, 16_384])
def test_the_limit_counts_the_whole_packet(size: int) -> None:
    frame = PublishPacket.build("t", bytes(size), None, False, 0, False).to_bytes()
    exact, short = FrameSplitter(len(frame)), FrameSplitter(len(frame) - 1)
    exact.feed(frame)
    assert exact.next_frame() == frame
    short.feed(frame[:5])
    with pytest.raises(Ended) as refusal:
        short.next_frame()
    assert refusal.value.ending is Ending.TOO_LARGE


def test_a_huge_length_is_refused_by_its_header() -> None:
    splitter = FrameSplitter(limit=1024)
    splitter.feed(b"\x30\xff\xff\xff\x7f")
    with pytest.raises(Ended) as refusal:
        splitter.next_frame()
    assert refusal.value.ending is Ending.TOO_LARGE


def test_a_length_of_five_bytes_is_malformed() -> None:
    splitter = FrameSplitter()
    splitter.feed(b"\x30\xff\xff\xff\xff\x01")
    with pytest.raises(Ended) as refusal:
        splitter.next_frame()
    assert refusal.value.ending is Ending.MALFORMED


@pytest.mark.parametrize(
    "frame",
    [
        b"\x30\x80\x00",  # the length takes more bytes than it needs
        b"\x30\x05\x00\x02\xff\xfex",  # no UTF-8
        b"\x30\x03\x00\x05t",  # a topic longer than the packet
        b"\x82\x07\x00\x01\x00\x02\xff\xfe\x00",  # no UTF-8 in a filter
        b"\xc0\x01x",  # a PINGREQ with contents
        b"\xf0\x00",
        b"\x00\x00",
        b"\x40\x01\x00",
    ],
)
def test_what_can_be_read_in_two_ways_is_malformed(frame: bytes) -> None:
    with pytest.raises(Ended) as refusal:
        decode(frame)
    assert refusal.value.ending is Ending.MALFORMED


@given(FRAMES)
def test_what_amqtt_writes_is_read(frame: bytes) -> None:
    assert decode(frame).to_bytes() == frame


@given(st.lists(st.tuples(st.text(max_size=20), st.integers(0, 2)), min_size=1, max_size=5))
def test_subscriptions_of_any_text_survive(topics: list[tuple[str, int]]) -> None:
    packet: Any = decode(SubscribePacket.build(topics, 7).to_bytes())
    assert packet.payload.topics == topics


@pytest.mark.parametrize("count", [1, 5, 32])
@pytest.mark.parametrize("filter_", ["a", "muster/v1/fleet/" + "x" * 100])
def test_filters_are_counted_before_they_are_read(filter_: str, count: int) -> None:
    wanted = [f"{filter_}{number}" for number in range(count)]
    subscribe = SubscribePacket.build([(each, 1) for each in wanted], 7).to_bytes()
    assert filters_in(subscribe, 32) == count
    assert filters_in(UnsubscribePacket.build(wanted, 7).to_bytes(), 32) == count


def test_a_packet_without_filters_has_none() -> None:
    assert filters_in(PublishPacket.build("a", b"x", 7, False, 1, False).to_bytes(), 32) == 0
    assert filters_in(b"\x82\x02\x00\x07", 32) == 0


def test_too_many_filters_are_too_much() -> None:
    frame = SubscribePacket.build([("a", 1)] * 33, 7).to_bytes()
    with pytest.raises(Ended) as ended:
        filters_in(frame, 32)
    assert ended.value.ending is Ending.TOO_LARGE


@given(st.sampled_from([0x82, 0xA2]), st.binary(max_size=120))
def test_whatever_the_codec_reads_as_filters_was_counted(kind: int, body: bytes) -> None:
    frame = bytes([kind, len(body)]) + body
    counted = filters_in(frame, 1000)
    try:
        packet: Any = decode(frame)
    except Ended:
        return
    assert counted == len(packet.payload.topics if packet.payload else [])
