"""What one client can make a broker hold is bounded; what the protocol needs fits."""

from broker.protocol.limits import MAX_REQUEST
from tests.support.brokers import Site
from tests.support.peers import peer


async def test_the_largest_request_passes(claims: Site) -> None:
    port, certificates = claims.broker.port, claims.certificates
    topic = f"muster/v1/claim/{'b' * 64}/{'d' * 64}/enroll"
    async with (
        claims.service() as service,
        peer(port, certificates.claim("b" * 64), "d" * 64) as device,
    ):
        await service.hear("muster/v1/claim/+/+/+")
        await device.say(topic, b"x" * MAX_REQUEST)
        assert len((await service.next()).payload) == MAX_REQUEST


async def test_a_larger_packet_ends_the_connection_that_brought_it(claims: Site) -> None:
    port, batch = claims.broker.port, claims.certificates.claim("batch")
    async with peer(port, batch, "bystander") as bystander:
        async with peer(port, batch, "device") as device:
            await device.attempt("muster/v1/claim/batch/device/enroll", b"x" * 17_000)
            await device.ended()
        await bystander.say("muster/v1/claim/batch/bystander/enroll", b"undisturbed")


async def test_the_fleet_bounds_packets_too(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    async with peer(fleet.broker.port, lamp) as device:
        await device.say("muster/v1/device/lamp/confirm", b"x" * 200_000)
        await device.attempt("muster/v1/device/lamp/confirm", b"x" * 300_000)
        await device.ended()
