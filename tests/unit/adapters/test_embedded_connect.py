"""The vetting of CONNECT."""

from typing import Any

import pytest
from amqtt.mqtt.connect import ConnectPacket

from broker.adapters.brokers.embedded import packets
from broker.adapters.brokers.embedded.connect import Admission, Will, vet_connect
from broker.adapters.brokers.embedded.errors import Ended, Ending
from broker.protocol.zones import Zone
from tests.support.embedded import connect_packet

TOPIC = "muster/v1/device/dev/gone"


def _vet(frame: bytes, zone: Zone = Zone.FLEET, name: str = "dev") -> Admission:
    return vet_connect(frame, zone, name, is_service=False)


def _will(topic: str = TOPIC, **changes: Any) -> dict[str, Any]:
    return {"will_flag": True, "will_topic": topic, "will_message": b"bye", **changes}


def _for_core(admission: Admission) -> ConnectPacket:
    packet = packets.decode(admission.for_core("some/session/1"))
    assert isinstance(packet, ConnectPacket)
    return packet


def test_the_core_gets_a_clean_session_under_our_id_and_no_secrets() -> None:
    frame = connect_packet(
        "dev",
        clean_session_flag=False,
        username_flag=True,
        username="root",
        password_flag=True,
        password="hunter2",
    )
    packet = _for_core(_vet(frame))
    assert packet.client_id == "some/session/1"
    assert packet.clean_session_flag
    assert not packet.username_flag
    assert not packet.password_flag
    assert packet.keep_alive == 0


def test_keep_alive_is_kept_for_the_guard() -> None:
    assert _vet(connect_packet("dev", keep_alive=33)).keep_alive_s == 33


@pytest.mark.parametrize("client_id", ["", "a/b", "x" * 65, "ü", "a b", "a\0", "a\n", "+", "#"])
@pytest.mark.parametrize("zone", list(Zone))
def test_a_client_id_is_a_name(zone: Zone, client_id: str) -> None:
    with pytest.raises(Ended) as refusal:
        _vet(connect_packet(client_id), zone)
    assert refusal.value.ending is Ending.CONNECT_REFUSED
    assert refusal.value.farewell == packets.connack(packets.IDENTIFIER_REJECTED)


def test_a_device_connects_as_itself_only() -> None:
    with pytest.raises(Ended) as refusal:
        _vet(connect_packet("other"))
    assert refusal.value.farewell == packets.connack(packets.IDENTIFIER_REJECTED)


def test_a_claimant_chooses_its_client_id() -> None:
    identity = _vet(connect_packet("anything"), Zone.CLAIM, "batch").identity
    assert (identity.name, identity.client_id) == ("batch", "anything")


@pytest.mark.parametrize("level", [0, 3, 5, 6, 0x84])
def test_other_versions_are_refused_as_such(level: int) -> None:
    with pytest.raises(Ended) as refusal:
        _vet(connect_packet("dev", proto_level=level))
    assert refusal.value.farewell == packets.connack(packets.UNACCEPTABLE_PROTOCOL)


def test_a_real_mqtt_5_connect_is_refused_as_such() -> None:
    frame = bytes.fromhex("10140004") + b"MQTT" + bytes.fromhex("05 02 003c 05 1100000000 0003")
    with pytest.raises(Ended) as refusal:
        _vet(frame[:1] + bytes([len(frame) + 3 - 2]) + frame[2:] + b"dev")
    assert refusal.value.farewell == packets.connack(packets.UNACCEPTABLE_PROTOCOL)


@pytest.mark.parametrize(
    "frame",
    [
        connect_packet("dev", proto_name="MQTX"),
        connect_packet("dev", reserved_flag=True),
        connect_packet("dev", will_qos=1),
        connect_packet("dev", will_retain_flag=True),
        connect_packet("dev") + b"x",
        b"\x10\x00",
    ],
)
def test_a_faulty_connect_is_malformed(frame: bytes) -> None:
    with pytest.raises(Ended) as refusal:
        _vet(frame[:1] + bytes([len(frame) - 2]) + frame[2:])
    assert refusal.value.ending is Ending.MALFORMED


def test_another_first_packet_is_no_connect() -> None:
    with pytest.raises(Ended) as refusal:
        _vet(b"\xc0\x00")
    assert refusal.value.ending is Ending.PROTOCOL


def test_a_will_on_an_own_topic_goes_on_without_retain() -> None:
    admission = _vet(connect_packet("dev", will_qos=1, **_will(will_retain_flag=True)))
    assert admission.will == Will(TOPIC, b"bye", 1, retain=False)
    packet = _for_core(admission)
    assert (packet.will_topic, packet.will_message, packet.will_qos) == (TOPIC, b"bye", 1)
    assert not packet.will_retain_flag


@pytest.mark.parametrize(
    "will",
    [
        _will("muster/v1/device/other/gone"),
        _will(f"{TOPIC}/accepted"),
        _will("$SYS/x"),
        _will("#"),
        _will(""),
        _will(will_qos=2),
    ],
)
def test_a_will_that_may_not_be_published_is_refused(will: dict[str, Any]) -> None:
    with pytest.raises(Ended) as refusal:
        _vet(connect_packet("dev", **will))
    assert refusal.value.farewell == packets.connack(packets.NOT_AUTHORIZED)
