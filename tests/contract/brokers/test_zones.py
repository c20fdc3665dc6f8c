"""A certificate opens its own zone and no other."""

import asyncio
import ssl

import pytest

from broker.protocol.zones import Zone
from tests.support.brokers import Site
from tests.support.knocking import Answer, Door, knock
from tests.support.peers import peer

DONE = b"that was all"


async def test_each_certificate_is_admitted_to_its_zone(claims: Site, fleet: Site) -> None:
    certificates = claims.certificates
    assert await knock(claims.broker.port, certificates.claim("batch")) is Answer.ADMITTED
    for site in (claims, fleet):
        service = certificates.service(site.zone)
        assert await knock(site.broker.service_port, service) is Answer.ADMITTED
    assert await knock(fleet.broker.port, certificates.device("lamp")) is Answer.ADMITTED


async def test_the_fleet_refuses_a_claim_certificate(fleet: Site) -> None:
    batch = fleet.certificates.claim("batch")
    assert await knock(fleet.broker.port, batch) is Answer.REFUSED


@pytest.mark.parametrize("zone", list(Zone))
async def test_nobody_is_admitted_without_a_certificate(
    zone: Zone, claims: Site, fleet: Site
) -> None:
    site = claims if zone is Zone.CLAIM else fleet
    context = ssl.create_default_context(cafile=str(site.certificates.home.server_anchors))
    connection = await asyncio.open_connection("localhost", site.broker.port, ssl=context)
    door = Door(*connection)
    try:
        assert await door.knock("anybody") is Answer.REFUSED
    finally:
        door.close()


@pytest.mark.parametrize("with_chain", [False, True])
async def test_the_claim_zone_refuses_an_operational_certificate(
    claims: Site, with_chain: bool
) -> None:
    lamp = claims.certificates.device("lamp", with_chain)
    assert await knock(claims.broker.port, lamp) is Answer.REFUSED


@pytest.mark.parametrize("with_chain", [False, True])
async def test_the_fleet_knows_its_issuer_without_being_shown(
    fleet: Site, with_chain: bool
) -> None:
    lamp = fleet.certificates.device("lamp", with_chain)
    assert await knock(fleet.broker.port, lamp) is Answer.ADMITTED


async def test_the_other_zones_service_has_no_say(claims: Site) -> None:
    certificates, port = claims.certificates, claims.broker.service_port
    stranger = certificates.service(Zone.FLEET)
    if await knock(port, stranger) is Answer.REFUSED:
        return
    answers = "muster/v1/claim/batch/victim/enroll/accepted"
    async with (
        claims.service() as service,
        peer(claims.broker.port, certificates.claim("batch"), "victim") as victim,
        peer(port, stranger) as other,
    ):
        await victim.hear(answers)
        await other.attempt(answers, b"forged")
        await service.say(answers, DONE)
        assert await victim.all_until(DONE) == []
