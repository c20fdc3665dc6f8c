"""Starting, changing and stopping the embedded broker; nothing may be left behind."""

import asyncio
import contextlib
import datetime as dt
import gc
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from amqtt.mqtt.subscribe import SubscribePacket

from broker.adapters.brokers.embedded import (
    BrokerError,
    BrokerErrorCode,
    BrokerLimits,
    EmbeddedBroker,
    Zone,
)
from broker.adapters.brokers.embedded.errors import Ending
from broker.adapters.brokers.embedded.packets import DISCONNECT
from tests.support.embedded import client_context, mqtt, raw, receive, running
from tests.support.pki import SERVER_AUTH, Pki
from tests.support.waiting import eventually


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def claim(pki: Pki) -> AsyncIterator[EmbeddedBroker]:
    async with running(pki, Zone.CLAIM) as broker:
        yield broker


async def test_a_taken_port_is_told(pki: Pki, claim: EmbeddedBroker) -> None:
    second = EmbeddedBroker(Zone.CLAIM, pki.tls(Zone.CLAIM), port=claim.port)
    with pytest.raises(BrokerError) as refusal:
        await second.start()
    assert refusal.value.code is BrokerErrorCode.PORT_TAKEN
    assert str(claim.port) in str(refusal.value)
    await second.stop()


async def test_an_address_of_another_machine_is_told(pki: Pki) -> None:
    broker = EmbeddedBroker(Zone.CLAIM, pki.tls(Zone.CLAIM), host="192.0.2.1")
    with pytest.raises(BrokerError) as refusal:
        await broker.start()
    assert refusal.value.code is BrokerErrorCode.ADDRESS_UNUSABLE


async def test_a_missing_file_is_told(pki: Pki) -> None:
    tls = replace(pki.tls(Zone.CLAIM), key=pki.directory / "missing.key")
    with pytest.raises(BrokerError) as refusal:
        await EmbeddedBroker(Zone.CLAIM, tls).start()
    assert refusal.value.code is BrokerErrorCode.FILE_MISSING


async def test_what_needs_a_running_broker_says_so(pki: Pki) -> None:
    broker = EmbeddedBroker(Zone.CLAIM, pki.tls(Zone.CLAIM))
    with pytest.raises(BrokerError) as refusal:
        await broker.apply_crl()
    assert refusal.value.code is BrokerErrorCode.NOT_RUNNING
    with pytest.raises(BrokerError):
        await broker.disconnect("x")
    with pytest.raises(BrokerError):
        _ = broker.port


async def test_stopping_ends_everything_in_time(pki: Pki) -> None:
    before = asyncio.all_tasks()
    async with contextlib.AsyncExitStack() as stack:
        patient = BrokerLimits(handshake_s=3600, connect_s=3600, patience_s=3600, write_s=3600)
        broker = EmbeddedBroker(Zone.CLAIM, pki.tls(Zone.CLAIM), limits=patient)
        await broker.start()
        with pytest.raises(BrokerError):
            await broker.start()
        port = broker.port
        pair = pki.device(Zone.CLAIM, "batch")
        for number in range(20):
            client = await stack.enter_async_context(raw(pki, broker, pair))
            assert await client.connect(f"dev-{number}") == 0
        await stack.enter_async_context(raw(pki, broker, pair))  # never sends its CONNECT
        _, silent = await asyncio.open_connection("localhost", port)  # not even TLS
        stack.callback(silent.transport.abort)
        async with asyncio.timeout(60):
            await broker.stop()
        await broker.stop()
        with pytest.raises(OSError, match=r"."):
            await asyncio.open_connection("localhost", port)
        assert {task for task in asyncio.all_tasks() if "broker" in repr(task)} <= before


async def test_it_can_be_started_again(pki: Pki) -> None:
    broker = EmbeddedBroker(Zone.CLAIM, pki.tls(Zone.CLAIM))
    for _ in range(2):
        await broker.start()
        async with raw(pki, broker, pki.device(Zone.CLAIM, "batch")) as client:
            assert await client.connect("dev") == 0
        await broker.stop()


async def test_a_newcomer_that_goes_wrong_isn_t_the_last(
    pki: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, wrong = asyncio.get_running_loop(), socket.socketpair()
    accept = loop.sock_accept
    # Not of TCP, so it lacks an option that is set; and what nobody foresees.
    newcomers: list[Any] = [KeyError("peer"), (wrong[0], None)]

    async def accept_wrong(listening: socket.socket) -> Any:
        newcomer = newcomers.pop() if newcomers else await accept(listening)
        if isinstance(newcomer, Exception):
            raise newcomer
        return newcomer

    monkeypatch.setattr(loop, "sock_accept", accept_wrong)
    async with (
        running(pki, Zone.CLAIM) as broker,
        raw(pki, broker, pki.device(Zone.CLAIM, "batch")) as client,
    ):
        assert await client.connect("dev") == 0
    assert not newcomers
    assert wrong[1].recv(1) == b"", "who isn't served is sent away"
    wrong[1].close()


async def test_connections_leave_nothing_behind(pki: Pki, claim: EmbeddedBroker) -> None:
    pair = pki.device(Zone.CLAIM, "batch")
    async with raw(pki, claim, pair) as client:
        assert await client.connect("warm-up") == 0
    await eventually(lambda: claim.connections == 0)
    tasks = len(asyncio.all_tasks())
    files = psutil.Process().num_fds()
    for number in range(0, 200, 20):
        await asyncio.gather(*(_visit(pki, claim, n) for n in range(number, number + 20)))
    await eventually(lambda: claim.connections == 0)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
    gc.collect()
    await eventually(lambda: psutil.Process().num_fds() <= files)
    site = claim._running()
    assert not site.core.sessions
    assert not site.core.subscriptions
    assert sum(claim.endings.values()) == 201


async def _visit(pki: Pki, broker: EmbeddedBroker, number: int) -> None:
    """Comes, subscribes, and leaves: every other time without a word."""
    client_id = f"dev-{number}"
    async with raw(pki, broker, pki.device(Zone.CLAIM, "batch")) as client:
        assert await client.connect(client_id) == 0
        filters = [(f"muster/v1/claim/batch/{client_id}/#", 1)]
        await client.send(SubscribePacket.build(filters, 1).to_bytes())
        await client.packet()
        if number % 2:
            await client.send(DISCONNECT)
            await client.closed()


@pytest.mark.parametrize("damage", ["missing", "corrupt", "expired"])
async def test_a_faulty_crl_changes_nothing(pki: Pki, claim: EmbeddedBroker, damage: str) -> None:
    revoked = pki.device(Zone.CLAIM, "revoked")
    pki.revoke(revoked, Zone.CLAIM)
    await claim.apply_crl()
    path = pki.tls(Zone.CLAIM).crl
    if damage == "missing":
        path.unlink()
    elif damage == "corrupt":
        path.write_bytes(path.read_bytes()[:200])
    else:
        expired = pki.claim.crl(valid=-dt.timedelta(hours=1))
        path.write_bytes(expired + pki.infrastructure.crl())
    with pytest.raises(BrokerError):
        await claim.apply_crl()
    with pytest.raises((EOFError, OSError)):
        async with raw(pki, claim, revoked) as client:
            await client.connect("dev")
    async with raw(pki, claim, pki.device(Zone.CLAIM, "good")) as client:
        assert await client.connect("dev") == 0


async def test_revocation_reaches_who_is_about_to_connect(pki: Pki, claim: EmbeddedBroker) -> None:
    pair = pki.device(Zone.CLAIM, "batch")
    async with raw(pki, claim, pair) as client:
        pki.revoke(pair, Zone.CLAIM)
        await claim.apply_crl()
        with pytest.raises(EOFError):
            await client.connect("dev")
    await eventually(lambda: claim.connections == 0)
    assert set(claim.endings) <= {Ending.LOCKED_OUT, Ending.CERTIFICATE_REFUSED}


async def test_a_new_server_certificate_comes_into_force(pki: Pki, claim: EmbeddedBroker) -> None:
    assert (
        await _server_serial(pki, claim)
        != (
            renewed := pki.pair("claim-broker", pki.infrastructure, SERVER_AUTH)
        ).certificate.serial_number
    )
    await claim.apply_crl()
    assert await _server_serial(pki, claim) == renewed.certificate.serial_number


async def _server_serial(pki: Pki, broker: EmbeddedBroker) -> int:
    async with raw(pki, broker, pki.device(Zone.CLAIM, "batch")) as client:
        tls: ssl.SSLObject = client.writer.get_extra_info("ssl_object")
        certificate = tls.getpeercert()
        assert certificate is not None
        return int(str(certificate["serialNumber"]), 16)


async def test_old_tls_is_refused(pki: Pki, claim: EmbeddedBroker) -> None:
    context = client_context(pki, pki.device(Zone.CLAIM, "batch"))
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert claim._running().trust.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert claim._running().trust.context.verify_mode is ssl.CERT_REQUIRED


async def test_live_connections_survive_a_new_crl(pki: Pki, claim: EmbeddedBroker) -> None:
    service = pki.service(Zone.CLAIM)
    async with (
        mqtt(pki, claim, service, "muster-service-claim") as listener,
        mqtt(pki, claim, pki.device(Zone.CLAIM, "batch"), "dev") as device,
    ):
        await listener.subscribe("muster/v1/#", qos=1)
        for _ in range(5):
            await claim.apply_crl()
        await device.publish("muster/v1/claim/batch/dev/enroll", b"x", qos=1)
        assert (await receive(listener)).payload == b"x"
