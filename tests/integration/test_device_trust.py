"""A device talks to nobody that can't prove who it is, and knows a refusal when it meets one."""

import dataclasses
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from broker.protocol.messages import EnrollAccepted, TrustBundle
from device_client.errors import CertificateRefused, ServerNotTrusted, Unreachable
from device_client.retry import TRIES_BEFORE_DOUBT
from tests.support.certificates import Certificates
from tests.support.device_agents import QUICK, device
from tests.support.fake_service import FakeFleet, fake_fleet
from tests.support.ports import free_port
from tests.support.strange_server import StrangeServer


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


def foreign_anchors(place: Path) -> TrustBundle:
    place.mkdir()
    anchors = Certificates(place, strangers=True).home.server_anchors.read_text()
    return TrustBundle(version=1, anchors=anchors)


async def test_a_claim_broker_of_another_installation(fleet: FakeFleet, tmp_path: Path) -> None:
    bundle = dataclasses.replace(
        fleet.bundle(), trust_bundle=foreign_anchors(tmp_path / "elsewhere")
    )
    with (
        device(tmp_path / "state", bundle) as (agent, _),
        pytest.raises(ServerNotTrusted, match="claim broker"),
    ):
        await agent.claim(60)
    assert fleet.service.enrolls == []


async def test_a_fleet_broker_of_another_installation(fleet: FakeFleet, tmp_path: Path) -> None:
    foreign = foreign_anchors(tmp_path / "elsewhere")

    def elsewhere(answer: EnrollAccepted) -> EnrollAccepted:
        return dataclasses.replace(answer, trust_bundle=foreign)

    fleet.service.enroll_script.append(elsewhere)
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(ServerNotTrusted, match="fleet broker"),
    ):
        await agent.claim(60)
    assert fleet.service.confirms == []


async def test_a_claim_broker_by_another_name(tmp_path: Path) -> None:
    server = StrangeServer(tmp_path)
    async with server.listening() as port:
        with (
            device(tmp_path / "state", server.bundle("127.0.0.1", port)) as (agent, _),
            pytest.raises(ServerNotTrusted, match="mismatch"),
        ):
            await agent.claim(60)
    assert server.met == 0


async def test_a_claim_broker_with_an_expired_certificate(tmp_path: Path) -> None:
    server = StrangeServer(tmp_path, days=(-3, -1))
    async with server.listening() as port:
        with (
            device(tmp_path / "state", server.bundle("localhost", port)) as (agent, _),
            pytest.raises(ServerNotTrusted, match="expired"),
        ):
            await agent.claim(60)
    assert server.met == 0


async def test_hanging_up_before_connack_is_a_refusal(tmp_path: Path) -> None:
    server = StrangeServer(tmp_path)
    async with server.listening(hang_up=True) as port:
        with (
            device(tmp_path / "state", server.bundle("localhost", port)) as (agent, _),
            pytest.raises(CertificateRefused),
        ):
            await agent.claim(60)
    assert server.met == TRIES_BEFORE_DOUBT


async def test_a_server_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    server = StrangeServer(tmp_path)
    timing = dataclasses.replace(QUICK, connect_s=0.5)
    async with server.listening() as port:
        bundle = server.bundle("localhost", port)
        with (
            device(tmp_path / "state", bundle, timing=timing) as (agent, _),
            pytest.raises(Unreachable, match="says nothing"),
        ):
            await agent.claim(60, wait=False)


async def test_a_server_that_does_not_shake_hands_is_given_up(tmp_path: Path) -> None:
    timing = dataclasses.replace(QUICK, connect_s=0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        bundle = StrangeServer(tmp_path).bundle("localhost", silent.getsockname()[1])
        with (
            device(tmp_path / "state", bundle, timing=timing) as (agent, _),
            pytest.raises(Unreachable),
        ):
            await agent.claim(60, wait=False)


@pytest.mark.parametrize("host", ["localhost", "no-such-host.invalid", "a" * 70 + ".example"])
async def test_no_server_at_all(tmp_path: Path, host: str) -> None:
    bundle = StrangeServer(tmp_path).bundle(host, free_port())
    with (
        device(tmp_path / "state", bundle) as (agent, _),
        pytest.raises(Unreachable, match=host),
    ):
        await agent.claim(60, wait=False)


async def test_the_claim_broker_refuses_a_claim_certificate_of_another_authority(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    foreign = StrangeServer(tmp_path).bundle("localhost", fleet.claim.port)
    bundle = dataclasses.replace(foreign, trust_bundle=fleet.bundle().trust_bundle)
    with (
        device(tmp_path / "state", bundle) as (agent, _),
        pytest.raises(CertificateRefused, match="claim broker"),
    ):
        await agent.claim(60)
    assert fleet.service.enrolls == []
