"""What holds for Mosquitto alone: its control, and its access lists."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from broker.adapters.brokers.admin_socket import MAX_CLIENT_ID, visit
from broker.adapters.brokers.crl_file import swap
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.brokers.mosquitto import MosquittoControl
from broker.protocol.topics import ZONE_OF, Operation
from broker.protocol.zones import Zone
from tests.support.certificates import Certificates
from tests.support.knocking import Answer, knock
from tests.support.mosquitto import STOCK, RunningMosquitto, run_mosquitto
from tests.support.peers import peer


@pytest.fixture
async def mosquitto(certificates: Certificates, tmp_path: Path) -> AsyncIterator[RunningMosquitto]:
    """A fleet broker."""
    async with run_mosquitto(Zone.FLEET, certificates.home.path, tmp_path) as running:
        yield running


async def refusal_of(attempt: Awaitable[object]) -> str:
    """The code with which `attempt` fails; it also says what to do."""
    with pytest.raises(BrokerControlError) as refused:
        await attempt
    assert refused.value.remedy
    return refused.value.code


async def test_a_broker_that_is_down_is_said_to_be_down(mosquitto: RunningMosquitto) -> None:
    await mosquitto.kill()
    assert await refusal_of(mosquitto.control.apply_crl()) == "broker_down"
    assert await refusal_of(mosquitto.control.disconnect("lamp")) == "broker_down"
    await mosquitto.restart()
    await mosquitto.control.apply_crl()
    assert await mosquitto.control.disconnect("lamp") == 1


async def test_no_stranger_is_signalled(mosquitto: RunningMosquitto, tmp_path: Path) -> None:
    signalled = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, signalled.set)
    try:
        stale = tmp_path / "stale.pid"
        stale.write_text(str(os.getpid()))
        control = MosquittoControl(replace(mosquitto.endpoint, pid_file=stale))
        assert await refusal_of(control.apply_crl()) == "broker_mismatch"
        assert not signalled.is_set()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)


@pytest.mark.parametrize("content", [b"", b"x", b"-1x"])
async def test_a_pid_file_without_a_pid_is_no_pid_file(
    mosquitto: RunningMosquitto, tmp_path: Path, content: bytes
) -> None:
    pid_file = tmp_path / "odd.pid"
    pid_file.write_bytes(content)
    control = MosquittoControl(replace(mosquitto.endpoint, pid_file=pid_file))
    assert await refusal_of(control.apply_crl()) == "broker_down"


@pytest.mark.parametrize("listener", ["devices", "service"])
async def test_a_missing_crl_is_not_applied(mosquitto: RunningMosquitto, listener: str) -> None:
    devices, service = mosquitto.endpoint.crls
    (devices if listener == "devices" else service).unlink()
    assert await refusal_of(mosquitto.control.apply_crl()) == "crl_unreadable"
    assert "Reloading config" not in mosquitto.log()


async def test_other_reloads_do_not_make_ours_get_lost(
    mosquitto: RunningMosquitto, certificates: Certificates
) -> None:
    """Mosquitto forgets a signal that comes during a reload; somebody else may cause one."""

    async def disturb() -> None:
        while True:
            os.kill(mosquitto.pid, signal.SIGHUP)
            await asyncio.sleep(0)

    crl = mosquitto.endpoint.crls[0]
    async with asyncio.TaskGroup() as tasks:
        disturbing = tasks.create_task(disturb())
        for number in range(20):
            lamp = certificates.device(f"lamp-{number}")
            pem = certificates.revoke(Zone.FLEET, [lamp])
            await asyncio.to_thread(swap, crl, pem, datetime.now(UTC))
            await mosquitto.control.apply_crl()
            assert await knock(mosquitto.port, lamp) is Answer.REFUSED, f"round {number}"
        disturbing.cancel()


async def test_several_may_apply_at_once(
    mosquitto: RunningMosquitto, certificates: Certificates
) -> None:
    lamp = certificates.device("lamp")
    pem = certificates.revoke(Zone.FLEET, [lamp])
    await asyncio.to_thread(swap, mosquitto.endpoint.crls[0], pem, datetime.now(UTC))
    async with asyncio.TaskGroup() as tasks:
        for _ in range(5):
            tasks.create_task(mosquitto.control.apply_crl())
    assert await knock(mosquitto.port, lamp) is Answer.REFUSED


async def test_disconnecting_ends_the_session_too_and_leaves_none(
    mosquitto: RunningMosquitto, certificates: Certificates
) -> None:
    lamp, topic = certificates.device("lamp"), "muster/v1/device/lamp/desired/update"
    async with peer(mosquitto.service_port, certificates.service(Zone.FLEET)) as service:
        async with peer(mosquitto.port, lamp, clean_session=False) as device:
            await device.hear(topic)
            await mosquitto.control.disconnect("lamp")
            await device.ended()
        await service.say(topic, b"to nobody")
        async with peer(mosquitto.port, lamp, clean_session=False) as device:
            await device.hear(topic)
            await service.say(topic, b"to the new session")
            assert await device.all_until(b"to the new session") == []


@pytest.mark.parametrize("length", [1, 120, 200, MAX_CLIENT_ID])
async def test_any_client_id_can_be_disconnected(mosquitto: RunningMosquitto, length: int) -> None:
    assert await mosquitto.control.disconnect("x" * length) == 1
    assert f"as {'x' * min(length, 200)}" in mosquitto.log()  # which cuts long lines


@pytest.mark.parametrize("client_id", ["", "x" * (MAX_CLIENT_ID + 1)])
async def test_what_is_no_client_id_is_refused(mosquitto: RunningMosquitto, client_id: str) -> None:
    assert await refusal_of(mosquitto.control.disconnect(client_id)) == "client_id_invalid"


@pytest.mark.parametrize("name", [None, "lamp", "muster-service-fleet"])
async def test_whoever_opens_the_admin_socket_reads_and_writes_nothing(
    mosquitto: RunningMosquitto, certificates: Certificates, name: str | None
) -> None:
    """Its listener has no certificates, so what it may do is the ACL's affair alone."""
    admin = paho.Client(CallbackAPIVersion.VERSION2, client_id="admin", transport="unix")
    admin.username_pw_set(name)
    async with peer(mosquitto.service_port, certificates.service(Zone.FLEET)) as service:
        await service.hear("muster/v1/#")

        def publish() -> None:
            admin.connect(str(mosquitto.endpoint.admin_socket))
            admin.loop_start()
            try:
                for topic in ("confirm", "confirm/accepted"):
                    forged = admin.publish(f"muster/v1/device/lamp/{topic}", b"forged", qos=1)
                    forged.wait_for_publish(5)
                    assert forged.is_published()
            finally:
                admin.disconnect()
                admin.loop_stop()

        await asyncio.to_thread(publish)
        await service.say("muster/v1/fleet/notice", b"genuine")
        assert await service.all_until(b"genuine") == []


@asynccontextmanager
async def impostor(path: Path, answer: bytes) -> AsyncIterator[None]:
    """Something that listens on an admin socket and says only `answer`, to one visitor."""
    left = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        left.set()

    server = await asyncio.start_unix_server(talk, path)
    async with server:
        yield
        await left.wait()


async def test_no_answer_is_waited_for_forever(tmp_path: Path) -> None:
    async with impostor(tmp_path / "s", b""):
        assert await refusal_of(visit(tmp_path / "s", "x", timeout_s=0.1)) == "broker_silent"


async def test_a_refusal_is_reported(tmp_path: Path) -> None:
    async with impostor(tmp_path / "s", b"\x20\x02\x00\x05"):
        assert await refusal_of(visit(tmp_path / "s", "x", timeout_s=60)) == "broker_refused"


@pytest.mark.parametrize("zone", list(Zone))
def test_the_access_list_grants_the_operations_of_the_protocol_and_no_more(zone: Zone) -> None:
    own = {Zone.CLAIM: "muster/v1/claim/%u/%c", Zone.FLEET: "muster/v1/device/%u"}[zone]
    granted = {
        line.removeprefix("pattern write ")
        for line in (STOCK / f"{zone}.acl").read_text().splitlines()
        if line.startswith("pattern") and " read " not in line
    }
    assert granted == {
        f"{own}/{operation}" for operation in Operation if ZONE_OF[operation] is zone
    }
