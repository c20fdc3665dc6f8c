"""A claim certificate that is used up, or asks too fast, is told of; once, and loud enough."""

from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from broker.core.claim_alarm import ClaimAlarm
from broker.core.rate_limit import TokenBuckets
from broker.core.records import Event, EventKind
from broker.protocol.codes import Refused
from broker.protocol.names import ClientId
from broker.protocol.topics import ClaimOrigin
from broker.services.admission import Admission
from broker.services.claim_alarms import ClaimAlarms
from tests.support.desk import BATCH, GROUP, Desk


@dataclass
class Counted:
    """Meets `broker.ports.telemetry.AlarmTelemetry`."""

    alarms: list[tuple[str, str]] = field(default_factory=list)

    def alarm(self, alarm: str, claim_name: str) -> None:
        self.alarms.append((alarm, claim_name))


@pytest.fixture
def telemetry() -> Counted:
    return Counted()


@pytest.fixture
def admission(desk: Desk) -> Admission:
    return Admission(desk.clock, TokenBuckets(1.0, 3), TokenBuckets(1.0, 2))


@pytest.fixture
def alarms(desk: Desk, admission: Admission, telemetry: Counted) -> ClaimAlarms:
    return ClaimAlarms(desk.registry, desk.clock, admission, telemetry)


def ask(admission: Admission, client: str, times: int) -> None:
    for _ in range(times):
        try:
            admission.admit(ClaimOrigin(BATCH, ClientId(client)))
        except Refused:
            continue


async def given(desk: Desk) -> list[Event]:
    return [e for e in await desk.events() if e.kind is EventKind.CLAIM_CERTIFICATE_ALARM]


async def test_at_four_fifths_of_its_claims_and_once_only(
    desk: Desk, alarms: ClaimAlarms, telemetry: Counted
) -> None:
    await desk.write(("count_claim", BATCH, 79))
    assert await alarms.look() == []
    await desk.write(("count_claim", BATCH, 1))
    assert [raised.alarm for raised in await alarms.look()] == [ClaimAlarm.NEARLY_USED]
    assert await alarms.look() == []
    (event,) = await given(desk)
    assert (event.claim_name, event.group, event.code) == (BATCH, GROUP, "claims_nearly_used")
    assert event.detail == "80 of 100 claims used"
    assert telemetry.alarms == [("claims_nearly_used", BATCH)]


async def test_one_client_that_hammers_is_no_leak(
    desk: Desk, alarms: ClaimAlarms, admission: Admission
) -> None:
    ask(admission, "board-1", 50)
    assert await alarms.look() == []


async def test_many_clients_that_are_too_many_are_one_each_hour(
    desk: Desk, alarms: ClaimAlarms, admission: Admission
) -> None:
    for hour in range(2):
        for client in ("a", "b", "c"):
            ask(admission, client, 2)
        (raised,) = await alarms.look()
        assert raised.alarm is ClaimAlarm.RATE_LIMITED
        for client in ("a", "b", "c"):
            ask(admission, client, 2)
        assert await alarms.look() == []
        assert len(await given(desk)) == hour + 1
        desk.clock.at += timedelta(hours=1)
