"""The guard of one connection, packet by packet."""

from typing import Any

import pytest
from amqtt.mqtt.puback import PubackPacket
from amqtt.mqtt.publish import PublishPacket
from amqtt.mqtt.subscribe import SubscribePacket
from amqtt.mqtt.unsubscribe import UnsubscribePacket
from hypothesis import given
from hypothesis import strategies as st

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.adapters.brokers.embedded.gate import Gate, Passage
from broker.adapters.brokers.embedded.policy import Identity, rights_of
from broker.protocol.zones import Zone

OWN = "muster/v1/device/dev"
ACCEPTED = f"{OWN}/confirm/accepted"


def _gate(denied: list[str] | None = None, is_service: bool = False, max_filters: int = 4) -> Gate:
    rights = rights_of(Identity(Zone.FLEET, "dev", "dev", is_service))
    notes = denied if denied is not None else []
    return Gate(rights, max_filters, lambda action, topic: notes.append(f"{action} {topic}"))


def _publish(
    topic: str, qos: int = 1, packet_id: int | None = 5, dup: bool = False, retain: bool = False
) -> bytes:
    packet_id = packet_id if qos else None
    return PublishPacket.build(topic, b"payload", packet_id, dup, qos, retain).to_bytes()


def _subscribe(*filters: str, qos: int = 1, packet_id: int = 7) -> bytes:
    return SubscribePacket.build([(f, qos) for f in filters], packet_id).to_bytes()


def _decoded(data: bytes) -> Any:
    return packets.decode(data)


def _subscribed(gate: Gate, *filters: str) -> None:
    gate.from_client(_subscribe(*filters))
    gate.from_core(packets.suback(7, [1] * len(filters)))


def test_an_allowed_publish_goes_on_unchanged() -> None:
    frame = _publish(f"{OWN}/confirm")
    assert _gate().from_client(frame) == Passage(to_core=frame)


@pytest.mark.parametrize("topic", ["muster/v1/device/other/confirm", "$SYS/x", f"{OWN}/desired/x"])
def test_a_denied_publish_is_swallowed_acknowledged_and_told(topic: str) -> None:
    denied: list[str] = []
    gate = _gate(denied)
    assert gate.from_client(_publish(topic)) == Passage(to_client=packets.puback(5))
    assert gate.from_client(_publish(topic, qos=0)) == Passage()
    assert denied == [f"publish {topic}"] * 2


def test_a_device_retains_nothing_and_a_service_does() -> None:
    frame = _publish(f"{OWN}/confirm", retain=True)
    assert not _decoded(_gate().from_client(frame).to_core).retain_flag
    assert _decoded(_gate(is_service=True).from_client(frame).to_core).retain_flag


def test_a_repeated_publish_goes_on_as_a_first_one() -> None:
    passage = _gate().from_client(_publish(f"{OWN}/confirm", dup=True))
    assert not _decoded(passage.to_core).dup_flag


@pytest.mark.parametrize(
    ("frame", "ending"),
    [
        (_publish(f"{OWN}/confirm", qos=2), Ending.PROTOCOL),
        (_publish(f"{OWN}/a\0b"), Ending.MALFORMED),
        (_publish(f"{OWN}/x", packet_id=0), Ending.MALFORMED),
        (_publish(f"{OWN}/x", qos=0, dup=True), Ending.MALFORMED),
        (b"\x36" + _publish(f"{OWN}/x")[1:], Ending.PROTOCOL),  # QoS 3
        (b"\x30\x05\x00\x03a/+", Ending.MALFORMED),
        (b"\x30\x02\x00\x00", Ending.MALFORMED),  # no topic
        (_subscribe(packet_id=7), Ending.MALFORMED),
        (_subscribe(ACCEPTED, packet_id=0), Ending.MALFORMED),
        (_subscribe(ACCEPTED, qos=3), Ending.MALFORMED),
        (b"\x80" + _subscribe(ACCEPTED)[1:], Ending.MALFORMED),
        (UnsubscribePacket.build([], 7).to_bytes(), Ending.MALFORMED),
        (packets.connack(0), Ending.PROTOCOL),
        (packets.suback(1, [0]), Ending.PROTOCOL),
        (packets.PING_RESPONSE, Ending.PROTOCOL),
        (b"\x10\x00", Ending.PROTOCOL),
        (b"\x50\x02\x00\x01", Ending.PROTOCOL),
        (b"\xc1\x00", Ending.MALFORMED),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(frame: bytes, ending: Ending) -> None:
    with pytest.raises(Ended) as ended:
        _gate().from_client(frame)
    assert ended.value.ending is ending


def test_a_ping_is_answered_and_a_disconnect_is_a_farewell() -> None:
    assert _gate().from_client(b"\xc0\x00") == Passage(to_client=packets.PING_RESPONSE)
    assert _gate().from_client(packets.DISCONNECT) == Passage(leaving=True)


def test_filters_are_judged_one_by_one() -> None:
    gate = _gate()
    passage = gate.from_client(_subscribe("#", ACCEPTED, "muster/v1/device/+/x/accepted"))
    assert _decoded(passage.to_core).payload.topics == [(ACCEPTED, 1)]
    assert gate.settling
    answer = gate.from_core(packets.suback(7, [1]))
    assert _decoded(answer.to_client).payload.return_codes == [0x80, 1, 0x80]
    assert not gate.settling


def test_nothing_granted_never_reaches_the_core() -> None:
    gate = _gate()
    passage = gate.from_client(_subscribe("#", "$SYS/#"))
    assert passage == Passage(to_client=packets.suback(7, [0x80, 0x80]))
    assert not gate.settling


def test_qos_2_is_granted_as_1() -> None:
    passage = _gate().from_client(_subscribe(ACCEPTED, qos=2))
    assert _decoded(passage.to_core).payload.topics == [(ACCEPTED, 1)]


def test_only_so_many_filters() -> None:
    gate = _gate(max_filters=2)
    passage = gate.from_client(_subscribe(*(f"{OWN}/desired/{n}" for n in range(3))))
    assert len(_decoded(passage.to_core).payload.topics) == 2
    answer = gate.from_core(packets.suback(7, [1, 1]))
    assert _decoded(answer.to_client).payload.return_codes == [1, 1, 0x80]
    again = gate.from_client(_subscribe(f"{OWN}/desired/0"))
    assert again.to_core, "a filter that it has may be asked for again"


def test_delivery_needs_a_right_and_a_filter() -> None:
    gate = _gate()
    for_it = _publish(ACCEPTED, packet_id=9)
    assert gate.from_core(for_it) == Passage(to_core=packets.puback(9)), "not asked for"
    _subscribed(gate, f"{OWN}/#")
    assert gate.from_core(for_it) == Passage(to_client=for_it)
    assert gate.from_core(_publish(f"{OWN}/confirm", qos=0)) == Passage(), "may not be read"
    other = _publish("muster/v1/device/other/desired/x", packet_id=9)
    assert gate.from_core(other) == Passage(to_core=packets.puback(9))


def test_nothing_is_delivered_after_an_unsubscribe() -> None:
    gate = _gate()
    _subscribed(gate, ACCEPTED)
    passage = gate.from_client(UnsubscribePacket.build([ACCEPTED, "never/held"], 8).to_bytes())
    assert _decoded(passage.to_core).payload.topics == [ACCEPTED]
    assert gate.settling
    assert gate.from_core(packets.unsuback(8)).to_client == packets.unsuback(8)
    assert gate.from_core(_publish(ACCEPTED, qos=0)) == Passage()


def test_an_unsubscribe_from_nothing_is_acknowledged() -> None:
    passage = _gate().from_client(UnsubscribePacket.build(["x"], 8).to_bytes())
    assert passage == Passage(to_client=packets.unsuback(8))


def test_acknowledgements_pass_both_ways() -> None:
    gate = _gate()
    _subscribed(gate, ACCEPTED)
    gate.from_core(_publish(ACCEPTED, packet_id=3))
    frame = PubackPacket.build(3).to_bytes()
    assert gate.from_client(frame) == Passage(to_core=frame)
    assert gate.from_core(frame) == Passage(to_client=frame)


def test_what_was_not_delivered_or_was_acknowledged_before_is_not_the_core_s_to_hear() -> None:
    gate = _gate()
    _subscribed(gate, ACCEPTED)
    gate.from_core(_publish(ACCEPTED, packet_id=3))
    gate.from_core(_publish(ACCEPTED, qos=0))
    assert gate.from_client(packets.puback(4)) == Passage()
    assert gate.from_client(packets.puback(3)) != Passage()
    assert gate.from_client(packets.puback(3)) == Passage()


@given(st.binary(min_size=2, max_size=80))
def test_hostile_bytes_only_ever_end_the_connection(data: bytes) -> None:
    length = len(data) - 2
    frame = data[:1] + bytes([length]) + data[2:]
    endings, passage = set(), Passage()
    try:
        passage = _gate().from_client(frame)
    except Ended as ended:
        endings.add(ended.ending)
    assert endings <= {Ending.MALFORMED, Ending.PROTOCOL}
    if frame[0] >> 4 == 3:
        assert not passage.to_core, "a random topic is nobody's own"
