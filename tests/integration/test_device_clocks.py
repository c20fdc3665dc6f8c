"""Devices with wrong clocks claim, renew and recover over real TLS; nobody else gains by it."""

import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509

from broker.protocol.codes import Code, Refused
from broker.protocol.messages import EnrollAccepted, RotationOrder
from broker.protocol.names import DeviceId
from broker.protocol.topics import Desired, desired_topic
from broker.protocol.zones import Zone
from device_client import status
from device_client.errors import AnswerInvalid, RequestRejected, ServerNotTrusted
from device_client.identity import Identity, Origin
from device_client.timekeeping import Standing, Timekeeper
from tests.support.device_agents import device, utc_now
from tests.support.fake_service import FakeFleet, fake_fleet
from tests.support.running_agents import running
from tests.support.strange_clocks import Clock, in_2100, reads, since_1970, years_ahead
from tests.support.waiting import eventually

CLOCKS = [since_1970, in_2100, lambda: years_ahead(3), lambda: years_ahead(-3)]
AHEAD = [in_2100, lambda: years_ahead(3)]
NAMES = ["1970", "2100", "ahead", "behind"]
over_clocks = pytest.mark.parametrize("make_clock", CLOCKS, ids=NAMES)


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[FakeFleet]:
    async with fake_fleet(tmp_path) as world:
        yield world


async def member(fleet: FakeFleet, state: Path) -> Identity:
    with device(state, fleet.bundle()) as (agent, _):
        return await agent.claim(60)


def without_root(fleet: FakeFleet) -> None:
    trust = dataclasses.replace(fleet.service.trust_bundle, root=None)
    fleet.service.trust_bundle = trust


@over_clocks
async def test_a_claim(fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]) -> None:
    with device(tmp_path / "state", fleet.bundle(), clock=make_clock()) as (agent, _):
        identity = await agent.claim(60)
    assert identity.confirmed_at is not None
    assert identity.not_before <= identity.confirmed_at < identity.not_after
    assert len(fleet.service.keys_seen()) == 1
    assert fleet.service.renews == []


@over_clocks
async def test_a_member_restarts(
    fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]
) -> None:
    """One whose clock is ahead asks for a new certificate once, as the proof of the time."""
    state, clock = tmp_path / "state", make_clock()
    await member(fleet, state)
    for _ in range(3):
        async with running(state, fleet, clock=clock) as one:
            await one.is_online()
    is_ahead = clock() > datetime.now(UTC)
    assert len(fleet.service.renews) == (1 if is_ahead else 0)
    assert status.report(state).clock is (Standing.AHEAD if is_ahead else Standing.BEHIND)
    async with running(state, fleet) as one:
        await one.is_online()
    assert status.report(state).clock is Standing.BELIEVED
    assert len(fleet.service.enrolls) == 1


@over_clocks
async def test_a_renewal(fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]) -> None:
    topic = desired_topic(DeviceId("device-A1"), Desired.ROTATION)
    async with running(tmp_path / "state", fleet, clock=make_clock()) as one:
        await one.is_online()
        past = datetime.now(UTC) - timedelta(hours=2)
        await fleet.service.retain(topic, RotationOrder(version=1, renew_by=past))
        await one.proves(lambda new: new.order == 1)


async def test_an_order_is_not_put_off_by_a_clock_that_is_behind(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """All that this device has seen signed is a month old: so much later is the order's time."""
    fleet.service.lifetime = timedelta(days=90)
    topic = desired_topic(DeviceId("device-A1"), Desired.ROTATION)
    given = datetime.now(UTC) + timedelta(days=30)
    order = RotationOrder(version=1, ordered_at=given, renew_by=given + timedelta(seconds=2))
    async with running(tmp_path / "state", fleet, clock=since_1970()) as one:
        await one.is_online()
        await fleet.service.retain(topic, order)
        await one.proves(lambda new: new.order == 1)


@over_clocks
async def test_a_recovery(
    fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]
) -> None:
    fleet.service.lifetime = timedelta(seconds=3)
    old = await member(fleet, tmp_path / "state")
    fleet.service.lifetime = timedelta(hours=1)
    await eventually(lambda: datetime.now(UTC) > old.not_after)
    async with running(tmp_path / "state", fleet, clock=make_clock()) as one:
        await one.proves(lambda new: new.key_sha256 != old.key_sha256)
        assert one.identity().origin is Origin.RECOVERY
    assert len(fleet.service.enrolls) == 1


async def test_a_clock_that_is_behind_needs_no_pinned_root(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    without_root(fleet)
    for _ in range(2):
        with device(tmp_path / "state", fleet.bundle(), clock=since_1970()) as (agent, _store):
            assert (await agent.claim(60)).confirmed_at is not None
    assert len(fleet.service.enrolls) == 1


@pytest.mark.parametrize("make_clock", AHEAD, ids=["2100", "ahead"])
async def test_without_a_pinned_root_the_clock_must_be_set(
    fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]
) -> None:
    without_root(fleet)
    with (
        device(tmp_path / "state", fleet.bundle(), clock=make_clock()) as (agent, _),
        pytest.raises(ServerNotTrusted, match="expired") as caught,
    ):
        await agent.claim(60)
    assert "clock" in caught.value.remedy
    assert fleet.service.enrolls == []


async def test_a_refusal_that_nobody_vouches_for_is_not_believed(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """As from a server whose certificate really is over."""
    fleet.service.enroll_script.append(Refused(Code.CLAIM_REVOKED))
    with (
        device(tmp_path / "state", fleet.bundle(), clock=in_2100()) as (agent, _),
        pytest.raises(ServerNotTrusted, match="refuses to prove"),
    ):
        await agent.claim(60)


async def test_a_certificate_of_another_root_proves_nothing(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    fleet.service.enroll_script.append(in_a_chain_of_its_own)
    with device(tmp_path / "state", fleet.bundle(), clock=in_2100()) as (agent, store):
        with pytest.raises(ServerNotTrusted, match="proves nothing"):
            await agent.claim(60)
        assert store.current() is None


def in_a_chain_of_its_own(answer: EnrollAccepted) -> EnrollAccepted:
    """The device's certificate alone, which leads to no root."""
    end = "-----END CERTIFICATE-----\n"
    leaf = answer.certificate_chain.split(end)[0] + end
    return dataclasses.replace(answer, certificate_chain=leaf)


async def test_a_key_from_before_the_clock_went_wrong_is_replaced(
    fleet: FakeFleet, tmp_path: Path
) -> None:
    """A certificate about it could be an old one, and proves nothing about the time."""
    fleet.service.enroll_script.append(Refused(Code.BUSY))
    with (
        device(tmp_path / "state", fleet.bundle()) as (agent, _),
        pytest.raises(RequestRejected),
    ):
        await agent.claim(60, wait=False)
    with device(tmp_path / "state", fleet.bundle(), clock=in_2100()) as (agent, _):
        await agent.claim(60)
    assert len(fleet.service.keys_seen()) == 2


@pytest.mark.parametrize(
    "make_clock", [since_1970, lambda: reads(utc_now())], ids=["1970", "right"]
)
async def test_a_certificate_from_beyond_the_server_s_end_is_refused(
    fleet: FakeFleet, tmp_path: Path, make_clock: Callable[[], Clock]
) -> None:
    """By a stolen operational key: the device's idea of the time isn't its to move so far."""
    state, ends = tmp_path / "state", _server_ends(fleet)
    honest_age, honest_life = fleet.service.age, fleet.service.lifetime

    def beyond() -> None:
        begins_in = ends - utc_now() + timedelta(hours=1)
        fleet.service.age, fleet.service.lifetime = -begins_in, begins_in + timedelta(days=30)

    def floor() -> datetime:
        timekeeper = Timekeeper(state / "clock.json", utc_now)
        timekeeper.load()
        return timekeeper.floor()

    beyond()
    with device(state, fleet.bundle(), clock=make_clock()) as (agent, store):
        with pytest.raises(AnswerInvalid, match="begins at"):
            await agent.claim(60, wait=False)
        assert store.current() is None
    fleet.service.age, fleet.service.lifetime = honest_age, honest_life
    fleet.service.forget_certificates()
    with device(state, fleet.bundle(), clock=make_clock()) as (agent, store):
        identity = await agent.claim(60)
        beyond()
        with pytest.raises(AnswerInvalid, match="begins at"):
            await agent._renew_once()
        assert store.current() == identity
        assert store.succession.successor() is None
    assert floor() < ends, "it goes by the same brokers as before"


def _server_ends(fleet: FakeFleet) -> datetime:
    pem = fleet.certificates.home.broker(Zone.FLEET).certificate.read_bytes()
    return x509.load_pem_x509_certificates(pem)[0].not_valid_after_utc
