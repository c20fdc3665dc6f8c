"""Only the asker reads the answer, and only the service writes it."""

import pytest

from tests.support.brokers import Site
from tests.support.peers import Heard, peer

GREEDY = (
    "#",
    "+/#",
    "muster/v1/#",
    "muster/v1/+/#",
    "muster/v1/claim/#",
    "muster/v1/claim/+/+/+/accepted",
    "muster/v1/claim/batch/victim/enroll/accepted",
    "muster/v1/device/#",
    "muster/v1/device/+/+/accepted",
    "muster/v1/device/+/desired/#",
    "muster/v1/device/victim/confirm/accepted",
    "$share/muster/muster/v1/#",
    "$share/muster/#",
    "$SYS/#",
)
SECRET = b"not for everybody"
OWN = b"for the asker"
FORGED = b"forged"


async def test_a_claimant_reads_no_answer_but_its_own(claims: Site) -> None:
    port, batch = claims.broker.port, claims.certificates.claim("batch")
    async with (
        claims.service() as service,
        peer(port, batch, "victim") as victim,
        peer(port, batch, "eavesdropper") as eavesdropper,
    ):
        own = "muster/v1/claim/batch/eavesdropper/enroll/accepted"
        await eavesdropper.hear(own, *GREEDY)
        await victim.hear("muster/v1/claim/batch/victim/enroll/accepted")
        await victim.say("muster/v1/claim/batch/victim/enroll", SECRET)
        await service.say("muster/v1/claim/batch/victim/enroll/accepted", SECRET)
        await service.say("muster/v1/claim/other/eavesdropper/enroll/accepted", SECRET)
        await service.say(own, OWN)
        assert await victim.next() == Heard("muster/v1/claim/batch/victim/enroll/accepted", SECRET)
        assert await eavesdropper.all_until(OWN) == []


async def test_a_device_reads_no_answer_but_its_own(fleet: Site) -> None:
    port = fleet.broker.port
    async with (
        fleet.service() as service,
        peer(port, fleet.certificates.device("victim")) as victim,
        peer(port, fleet.certificates.device("lamp")) as eavesdropper,
    ):
        await service.say("muster/v1/device/victim/desired/update", SECRET, retain=True)
        own = "muster/v1/device/lamp/confirm/rejected"
        await eavesdropper.hear(own, *GREEDY)
        await victim.hear("muster/v1/device/victim/confirm/accepted")
        await victim.say("muster/v1/device/victim/confirm", SECRET)
        await service.say("muster/v1/device/victim/confirm/accepted", SECRET)
        await service.say(own, OWN)
        assert await victim.next() == Heard("muster/v1/device/victim/confirm/accepted", SECRET)
        assert await eavesdropper.all_until(OWN) == []


@pytest.mark.parametrize("outcome", ["accepted", "rejected"])
async def test_nobody_answers_a_claimant_but_the_service(claims: Site, outcome: str) -> None:
    port, batch = claims.broker.port, claims.certificates.claim("batch")
    answers = f"muster/v1/claim/batch/victim/enroll/{outcome}"
    async with (
        claims.service() as service,
        peer(port, batch, "victim") as victim,
    ):
        await victim.hear(answers)
        async with peer(port, batch, "attacker") as attacker:
            await attacker.attempt(answers, FORGED)
        await victim.attempt(answers, FORGED)
        await service.say(answers, OWN)
        assert await victim.all_until(OWN) == []


@pytest.mark.parametrize(
    "level", ["confirm/accepted", "confirm/rejected", "desired/update", "desired/a/b"]
)
@pytest.mark.parametrize("retain", [False, True])
async def test_nobody_answers_or_commands_a_device_but_the_service(
    fleet: Site, level: str, retain: bool
) -> None:
    port, lamp = fleet.broker.port, fleet.certificates.device("lamp")
    topic = f"muster/v1/device/lamp/{level}"
    async with peer(port, fleet.certificates.device("attacker")) as attacker:
        await attacker.attempt(topic, FORGED, retain)
    async with peer(port, lamp) as itself:
        await itself.attempt(topic, FORGED, retain)
    async with (
        fleet.service() as service,
        peer(port, lamp) as device,
    ):
        await device.hear(topic)
        await service.say(topic, OWN)
        assert await device.all_until(OWN) == []


async def test_what_a_device_retains_is_delivered_to_nobody_else(fleet: Site) -> None:
    port = fleet.broker.port
    async with peer(port, fleet.certificates.device("fridge")) as fridge:
        for topic in (
            "muster/v1/device/fridge/confirm",
            "muster/v1/device/lamp/desired/update",
            "muster/v1/fleet/notice",
            "retained",
        ):
            await fridge.attempt(topic, FORGED, retain=True)
    async with (
        fleet.service() as service,
        peer(port, fleet.certificates.device("lamp")) as lamp,
    ):
        own = "muster/v1/device/lamp/desired/update"
        await lamp.hear(own, "muster/v1/fleet/#", *GREEDY)
        await service.say(own, OWN)
        assert await lamp.all_until(OWN) == []


async def test_what_the_service_retains_reaches_whom_it_is_for(fleet: Site) -> None:
    port = fleet.broker.port
    own, public = "muster/v1/device/lamp/desired/update", "muster/v1/fleet/notice"
    async with fleet.service() as service:
        await service.say(own, OWN, retain=True)
        await service.say(public, b"for all", retain=True)
    async with peer(port, fleet.certificates.device("lamp")) as lamp:
        await lamp.hear("muster/v1/device/lamp/desired/#", "muster/v1/fleet/#")
        heard = {(message.topic, message.payload) for message in [await lamp.next() for _ in "12"]}
        assert heard == {(own, OWN), (public, b"for all")}
