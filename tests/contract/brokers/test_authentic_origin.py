"""A message on `…/{certificate name}/{client id}/…` came from who proved that certificate."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import aiomqtt
import pytest

from broker.protocol.codes import Refused
from broker.protocol.names import ClaimName, ClientId
from broker.protocol.topics import ClaimOrigin, Origin, parse_request
from broker.protocol.zones import Zone
from tests.support.brokers import Site
from tests.support.certificates import Certificates, Client
from tests.support.knocking import Answer, knock
from tests.support.peers import Heard, Peer, peer

DONE = b"that was all"
SPOOF = b"spoofed"
ODD_IDS = (
    "victim/enroll",
    "victim/enroll/accepted",
    "victim/",
    "/victim",
    "a/b",
    "+",
    "#",
    "vic+im",
    "%u",
    "%c",
    "two words",
    "line\nbreak",
    "$SYS",
    "-" * 65,
    "ä",
)


async def requests_until_done(service: Peer) -> list[Heard]:
    return await service.all_until(DONE)


async def service_of(stack: AsyncExitStack, site: Site) -> Peer:
    """The service, listening to everything in its zone."""
    service = await stack.enter_async_context(site.service())
    await service.hear("muster/v1/#")
    return service


def origin_of(heard: Heard) -> Origin | None:
    """Whom the service would take for the sender; none when it would refuse to say."""
    try:
        return parse_request(heard.topic).origin
    except Refused:
        return None


async def test_a_request_reaches_the_service_under_its_senders_names(claims: Site) -> None:
    batch = claims.certificates.claim("batch")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        device = await stack.enter_async_context(peer(claims.broker.port, batch, "device-1"))
        await device.say("muster/v1/claim/batch/device-1/enroll", b"please")
        assert await service.next() == Heard("muster/v1/claim/batch/device-1/enroll", b"please")


async def test_a_device_reaches_the_service_under_its_name(fleet: Site) -> None:
    async with AsyncExitStack() as stack:
        service = await service_of(stack, fleet)
        lamp = await stack.enter_async_context(
            peer(fleet.broker.port, fleet.certificates.device("lamp"))
        )
        await lamp.say("muster/v1/device/lamp/confirm", b"here")
        assert await service.next() == Heard("muster/v1/device/lamp/confirm", b"here")


@pytest.mark.parametrize(
    "topic",
    [
        "muster/v1/claim/other/device-1/enroll",
        "muster/v1/claim/batch/device-2/enroll",
        "muster/v1/claim/batch/device-2/enroll/accepted",
        "muster/v1/claim/batch/device-1/enroll/accepted",
        "muster/v1/claim/batch/device-1/enroll/rejected",
        "muster/v1/claim/batch/device-1/enroll/more/accepted",
        "muster/v1/device/lamp/confirm",
        "muster/v1/fleet/notice",
        "muster/v1/claim/batch",
        "muster/v1",
    ],
)
async def test_a_claimant_publishes_as_nobody_else(claims: Site, topic: str) -> None:
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        batch = claims.certificates.claim("batch")
        async with peer(claims.broker.port, batch, "device-1") as spoofer:
            await spoofer.attempt(topic, SPOOF)
        async with peer(claims.broker.port, batch, "device-1") as honest:
            await honest.say("muster/v1/claim/batch/device-1/enroll", DONE)
        assert await requests_until_done(service) == []


@pytest.mark.parametrize(
    "topic",
    [
        "muster/v1/device/fridge/confirm",
        "muster/v1/device/lamp/confirm/accepted",
        "muster/v1/device/lamp/confirm/rejected",
        "muster/v1/device/lamp/desired",
        "muster/v1/device/lamp/desired/update",
        "muster/v1/device/lamp/x/desired/update",
        "muster/v1/device/lamp",
        "muster/v1/claim/lamp/lamp/enroll",
        "muster/v1/fleet",
        "muster/v1/fleet/notice",
    ],
)
async def test_a_device_publishes_as_nobody_else(fleet: Site, topic: str) -> None:
    lamp = fleet.certificates.device("lamp")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, fleet)
        for retain in (False, True):
            async with peer(fleet.broker.port, lamp) as spoofer:
                await spoofer.attempt(topic, SPOOF, retain)
        async with peer(fleet.broker.port, lamp) as honest:
            await honest.say("muster/v1/device/lamp/confirm", DONE)
        assert await requests_until_done(service) == []


@pytest.mark.parametrize("odd", ODD_IDS)
async def test_an_odd_client_id_opens_nothing(claims: Site, odd: str) -> None:
    batch = claims.certificates.claim("batch")
    own = f"muster/v1/claim/batch/{odd}"
    spoofs = [
        "muster/v1/claim/batch/victim/enroll",
        "muster/v1/claim/batch/victim/enroll/accepted",
        f"{own}/enroll",
        f"{own}/accepted",
        f"{own}/enroll/accepted",
        own,
    ]
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        victim = await stack.enter_async_context(peer(claims.broker.port, batch, "victim"))
        await victim.hear("muster/v1/claim/batch/victim/enroll/accepted")
        try:
            # Mosquitto hangs up on some without an answer, which aiomqtt doesn't notice.
            async with peer(claims.broker.port, batch, odd, within=5) as spoofer:
                for topic in spoofs:
                    if "+" not in topic and "#" not in topic:
                        await spoofer.attempt(topic, SPOOF)
        except aiomqtt.MqttError:
            pass  # refused at once, which is as good
        await service.say("muster/v1/claim/batch/victim/enroll/accepted", DONE)
        assert await victim.all_until(DONE) == []
        heard = await requests_until_done(service)
        assert [origin_of(message) for message in heard] == [None] * len(heard)


async def test_the_username_that_is_sent_counts_for_nothing(claims: Site) -> None:
    batch = claims.certificates.claim("batch")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        try:
            async with peer(claims.broker.port, batch, "x", username="other") as spoofer:
                await spoofer.attempt("muster/v1/claim/other/x/enroll", SPOOF)
                await spoofer.attempt("muster/v1/claim/batch/x/enroll/accepted", SPOOF)
        except aiomqtt.MqttError:
            pass
        async with peer(claims.broker.port, batch, "x") as honest:
            await honest.say("muster/v1/claim/batch/x/enroll", DONE)
        assert await requests_until_done(service) == []


async def test_a_will_is_a_message_like_any_other(fleet: Site) -> None:
    will = aiomqtt.Will("muster/v1/device/fridge/confirm", SPOOF, qos=1)
    lamp = fleet.certificates.device("lamp")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, fleet)
        try:
            async with peer(fleet.broker.port, lamp, will=will) as spoofer:
                await fleet.broker.disconnect("lamp")
                await spoofer.ended()
        except aiomqtt.MqttError:
            pass
        async with peer(fleet.broker.port, lamp) as honest:
            await honest.say("muster/v1/device/lamp/confirm", DONE)
        assert await requests_until_done(service) == []


async def test_a_device_neither_imitates_nor_disturbs_another(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    fridge = fleet.certificates.device("fridge")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, fleet)
        victim = await stack.enter_async_context(peer(fleet.broker.port, fridge))
        try:
            async with peer(fleet.broker.port, lamp, "fridge") as spoofer:
                await spoofer.attempt("muster/v1/device/fridge/confirm", SPOOF)
        except aiomqtt.MqttError:
            pass
        await victim.say("muster/v1/device/fridge/confirm", DONE)
        assert await requests_until_done(service) == []


async def test_a_device_does_not_throw_the_service_off(fleet: Site) -> None:
    lamp = fleet.certificates.device("lamp")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, fleet)
        try:
            async with peer(fleet.broker.port, lamp, "muster-service-fleet"):
                pass
        except aiomqtt.MqttError:
            pass
        async with peer(fleet.broker.port, lamp) as honest:
            await honest.say("muster/v1/device/lamp/confirm", DONE)
        assert await requests_until_done(service) == []


async def test_a_shared_subscription_takes_nothing_from_the_service(claims: Site) -> None:
    batch = claims.certificates.claim("batch")
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        thief = await stack.enter_async_context(peer(claims.broker.port, batch, "thief"))
        await thief.hear("$share/muster/muster/v1/#", "$share/muster/muster/v1/claim/+/+/+")
        asker = await stack.enter_async_context(peer(claims.broker.port, batch, "asker"))
        for number in range(10):
            await asker.say("muster/v1/claim/batch/asker/enroll", b"%d" % number)
        await asker.say("muster/v1/claim/batch/asker/enroll", DONE)
        heard = await requests_until_done(service)
        assert [message.payload for message in heard] == [b"%d" % n for n in range(10)]


async def test_the_claimed_origin_is_that_of_the_topic(claims: Site) -> None:
    async with AsyncExitStack() as stack:
        service = await service_of(stack, claims)
        for batch in ("batch-1", "batch-2"):
            client = claims.certificates.claim(batch)
            async with peer(claims.broker.port, client, "same-id") as device:
                await device.say(f"muster/v1/claim/{batch}/same-id/enroll")
        origins = [origin_of(await service.next()) for _ in range(2)]
        assert origins == [
            ClaimOrigin(ClaimName("batch-1"), ClientId("same-id")),
            ClaimOrigin(ClaimName("batch-2"), ClientId("same-id")),
        ]


@pytest.mark.parametrize("zone", list(Zone))
async def test_certificates_of_other_authorities_are_refused(
    zone: Zone, claims: Site, fleet: Site, tmp_path: Path
) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    others = await asyncio.to_thread(Certificates, place, strangers=True)
    site = claims if zone is Zone.CLAIM else fleet
    ours = site.certificates.home.server_anchors
    for theirs in (others.claim("batch"), others.device("lamp"), others.service(zone)):
        client = Client(theirs.name, theirs.certificate, theirs.key, ours)
        assert await knock(site.broker.port, client) is Answer.REFUSED
