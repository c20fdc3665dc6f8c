"""A broker that lost its memory is filled again by those who know."""

from tests.support.brokers import Site
from tests.support.knocking import Answer, knock
from tests.support.peers import Heard, peer

DESIRED = "muster/v1/device/lamp/desired/update"


async def test_after_a_crash_the_service_publishes_again_and_devices_get_it(fleet: Site) -> None:
    port, certificates = fleet.broker.port, fleet.certificates
    lamp = certificates.device("lamp")
    async with fleet.service() as service, peer(port, lamp) as device:
        await service.say(DESIRED, b"1", retain=True)
        await fleet.broker.restart()
        await service.ended()
        await device.ended()
    async with fleet.service() as service:
        await service.say(DESIRED, b"1", retain=True)
    async with peer(port, lamp) as device:
        await device.hear("muster/v1/device/lamp/desired/#")
        assert await device.next() == Heard(DESIRED, b"1", retained=True)


async def test_after_a_crash_a_request_is_repeated_and_answered(claims: Site) -> None:
    port, batch = claims.broker.port, claims.certificates.claim("batch")
    request = "muster/v1/claim/batch/device-1/enroll"
    async with peer(port, batch, "device-1") as device:
        await device.say(request, b"lost with the broker")
        await claims.broker.restart()
        await device.ended()
    async with (
        claims.service() as service,
        peer(port, batch, "device-1") as device,
    ):
        await service.hear("muster/v1/claim/+/+/+")
        await device.hear(f"{request}/accepted")
        await device.say(request, b"again")
        assert (await service.next()).payload == b"again"
        await service.say(f"{request}/accepted", b"welcome")
        assert (await device.next()).payload == b"welcome"


async def test_after_a_crash_the_revoked_stay_out(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    await fleet.put_in_force([lamp])
    await fleet.broker.restart()
    assert await knock(fleet.broker.port, lamp) is Answer.REFUSED
    assert await knock(fleet.broker.port, fleet.certificates.device("fridge")) is Answer.ADMITTED
    # Its control is the same as before the crash.
    fridge = fleet.certificates.device("fridge")
    await fleet.put_in_force([fridge])
    assert await knock(fleet.broker.port, fridge) is Answer.REFUSED
