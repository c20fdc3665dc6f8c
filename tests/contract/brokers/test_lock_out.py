"""A revoked certificate is refused at connect, and its live connection ends."""

import asyncio
import ssl

import pytest

from broker.adapters.brokers.crl_file import swap
from broker.adapters.brokers.embedded import BrokerError
from broker.adapters.brokers.errors import BrokerControlError
from tests.support.brokers import Site
from tests.support.certificates import Client
from tests.support.half_open import HalfOpen, blocking_tls
from tests.support.knocking import Answer, approach, connect_packet, knock
from tests.support.peers import peer

ROUNDS = 50


async def test_a_revoked_certificate_is_refused_at_once_every_time(fleet: Site) -> None:
    port, certificates = fleet.broker.port, fleet.certificates
    for number in range(ROUNDS):
        lamp = certificates.device(f"lamp-{number}")
        assert await knock(port, lamp) is Answer.ADMITTED
        await fleet.put_in_force([lamp])
        assert await knock(port, lamp) is Answer.REFUSED, f"round {number}"


async def test_a_revoked_claim_certificate_is_refused(claims: Site) -> None:
    batch, other = claims.certificates.claim("batch"), claims.certificates.claim("other")
    assert await knock(claims.broker.port, batch, "any") is Answer.ADMITTED
    await claims.put_in_force([batch])
    assert await knock(claims.broker.port, batch, "any") is Answer.REFUSED
    assert await knock(claims.broker.port, other, "any") is Answer.ADMITTED


async def test_a_live_connection_ends_and_stays_out(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    async with peer(fleet.broker.port, lamp) as device:
        await fleet.put_in_force([lamp])
        await fleet.broker.disconnect("lamp")
        await device.ended()
    assert await knock(fleet.broker.port, lamp) is Answer.REFUSED


async def test_everybody_else_stays_connected(fleet: Site) -> None:
    port, certificates = fleet.broker.port, fleet.certificates
    lamp = certificates.device("lamp")
    async with (
        fleet.service() as service,
        peer(port, certificates.device("fridge")) as fridge,
        peer(port, lamp) as device,
    ):
        await service.hear("muster/v1/device/+/+")
        await fleet.put_in_force([lamp])
        await fleet.broker.disconnect("lamp")
        await device.ended()
        await fridge.say("muster/v1/device/fridge/confirm", b"still here")
        assert (await service.next()).payload == b"still here"


async def test_a_disconnected_device_that_is_not_revoked_comes_back(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    async with peer(fleet.broker.port, lamp) as device:
        await fleet.broker.disconnect("lamp")
        await device.ended()
    assert await knock(fleet.broker.port, lamp) is Answer.ADMITTED


async def test_only_the_certificate_is_revoked_not_the_name(fleet: Site) -> None:
    old, new = fleet.certificates.device("lamp"), fleet.certificates.device("lamp")
    await fleet.put_in_force([old])
    assert await knock(fleet.broker.port, old) is Answer.REFUSED
    assert await knock(fleet.broker.port, new) is Answer.ADMITTED


@pytest.mark.parametrize("stage", ["accepted", "greeted"])
async def test_a_handshake_under_way_does_not_escape(fleet: Site, stage: str) -> None:
    lamp = fleet.certificates.device("lamp")
    async with HalfOpen.connect(fleet.broker.port, lamp) as connection:
        if stage == "greeted":
            await connection.greet()
        # Whoever is admitted now was accepted later than that connection.
        assert await knock(fleet.broker.port, fleet.certificates.device("other")) is Answer.ADMITTED
        await fleet.put_in_force([lamp])
        assert await connection.finish("lamp") is Answer.REFUSED


async def test_a_connection_kept_ready_ends_with_the_next_disconnect(fleet: Site) -> None:
    """A handshake that was complete before is beyond a CRL: a broker may admit its CONNECT, and
    then it takes a second `disconnect`."""
    lamp = fleet.certificates.device("lamp")
    door = await approach(fleet.broker.port, lamp)
    try:
        assert await knock(fleet.broker.port, lamp) is Answer.ADMITTED
        await fleet.put_in_force([lamp])
        await fleet.broker.disconnect("lamp")
        if await door.knock("lamp") is Answer.ADMITTED:
            await fleet.broker.disconnect("lamp")
        await door.ended()
    finally:
        door.close()


async def test_a_resumed_session_is_refused(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    context = lamp.context()
    session = await asyncio.to_thread(_session, fleet.broker.port, context, lamp)
    await fleet.put_in_force([lamp])
    assert await asyncio.to_thread(_resume, fleet.broker.port, context, session) is Answer.REFUSED


async def test_a_damaged_crl_changes_nothing(fleet: Site) -> None:
    revoked, lamp = fleet.certificates.device("revoked"), fleet.certificates.device("lamp")
    await fleet.put_in_force([revoked])
    path = fleet.certificates.home.crl_file(fleet.zone)
    whole = path.read_bytes()
    now = fleet.certificates.now()
    for damaged in (b"", whole[:-40], whole.replace(b"M", b"N", 3), b"# nothing\n"):
        with pytest.raises(BrokerControlError) as refused:
            swap(path, damaged, now)
        assert refused.value.code == "crl_invalid"
        assert path.read_bytes() == whole
        path.write_bytes(damaged)
        with pytest.raises((BrokerControlError, BrokerError)):
            await fleet.broker.apply_crl()
        path.write_bytes(whole)
        assert await knock(fleet.broker.port, revoked) is Answer.REFUSED
        assert await knock(fleet.broker.port, lamp) is Answer.ADMITTED


def _session(port: int, context: ssl.SSLContext, client: Client) -> ssl.SSLSession:
    with blocking_tls(port, context) as tls:
        tls.sendall(connect_packet(client.name))
        assert tls.recv(4) == b"\x20\x02\x00\x00"
        session = tls.session
        assert session is not None, "the broker offers no session to resume"
        return session


def _resume(port: int, context: ssl.SSLContext, session: ssl.SSLSession) -> Answer:
    try:
        with blocking_tls(port, context, session) as tls:
            tls.sendall(connect_packet("lamp"))
            return Answer.ADMITTED if tls.recv(4) == b"\x20\x02\x00\x00" else Answer.REFUSED
    except (ssl.SSLError, ConnectionError):
        return Answer.REFUSED
