"""Whoever stole a zone's own authority can name certificates as it likes; the service's name is
worth nothing on them."""

from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiomqtt
import pytest

from broker.protocol.zones import Zone
from tests.support.brokers import Site, run_site
from tests.support.certificates import Certificates, Client
from tests.support.knocking import Answer, knock
from tests.support.peers import Peer, peer

SPOOF = b"spoof"
SECRET = b"secret"
DONE = b"that was all"
OWN = {Zone.CLAIM: "muster/v1/claim/{0}/{0}/enroll", Zone.FLEET: "muster/v1/device/{0}/confirm"}


@pytest.fixture(params=list(Zone))
async def site(
    request: pytest.FixtureRequest, kind: str, certificates: Certificates, tmp_path: Path
) -> AsyncIterator[Site]:
    """Either zone."""
    async with run_site(kind, request.param, certificates, tmp_path) as running:
        yield running


def honest(site: Site) -> Client:
    """A client that the zone is for."""
    made = site.certificates
    return made.claim("honest") if site.zone is Zone.CLAIM else made.device("honest")


async def attack(site: Site, service: Peer, victim: Peer) -> None:
    """All that comes to a thief's mind; MqttError where it isn't even let in."""
    forged = site.certificates.forged(site.zone, f"muster-service-{site.zone}")
    request, own = (OWN[site.zone].format(name) for name in ("honest", forged.name))
    will = aiomqtt.Will(f"{request}/accepted", SPOOF, qos=1)
    async with peer(site.broker.port, forged, will=will, within=5) as thief:
        await thief.hear("#", "muster/v1/#", "$share/thieves/muster/v1/#")
        await thief.attempt(request, SPOOF)
        await thief.attempt(f"{request}/accepted", SPOOF)
        # Where nothing may be retained, to try it ends the connection.
        await thief.attempt("muster/v1/fleet/notice", SPOOF, retain=site.zone is Zone.FLEET)
        await victim.say(request, SECRET)
        await service.say(f"{request}/rejected", SECRET)
        await service.say(f"{own}/accepted", DONE)
        assert await thief.all_until(DONE) == []
        await site.broker.disconnect(forged.name)
        await thief.ended()


async def test_the_service_s_name_on_a_forged_certificate_is_worth_nothing(site: Site) -> None:
    request = OWN[site.zone].format("honest")
    async with site.service() as service, peer(site.broker.port, honest(site)) as victim:
        await service.hear("muster/v1/#")
        await victim.hear("muster/v1/#", f"{request}/accepted", f"{request}/rejected")
        with suppress(aiomqtt.MqttError):
            await attack(site, service, victim)
        await victim.say(request, DONE)
        await service.say(f"{request}/accepted", DONE)
        for each in (victim, service):  # which is connected still
            assert SPOOF not in [heard.payload for heard in await each.all_until(DONE)]


async def test_the_service_s_listener_lets_nobody_else_in(site: Site) -> None:
    forged = site.certificates.forged(site.zone, f"muster-service-{site.zone}")
    assert await knock(site.broker.service_port, forged) is Answer.REFUSED
    if site.broker.service_port != site.broker.port:
        assert await knock(site.broker.service_port, honest(site)) is Answer.REFUSED
        service = site.certificates.service(site.zone)
        assert await knock(site.broker.port, service) is Answer.REFUSED
