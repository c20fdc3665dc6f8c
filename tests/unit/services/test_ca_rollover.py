"""What the operator's acts and the service's steps make of an authority's replacement."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from broker.adapters.registry.ca_rollovers import CaRollovers as CaRolloverRows
from broker.core.ca_rollover import InForce, Phase, Rollover, in_force
from broker.core.campaign import CampaignState, SelectionKind
from broker.core.findings import Level
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import EventKind, RevocationReason
from broker.ports.registry import WriteTransaction
from broker.protocol.names import DeviceId
from broker.services.ca_rollover import CaRollovers, Pace
from broker.services.ca_rollover_findings import PATIENCE, examine_ca_rollover
from broker.services.ca_rollover_steps import CaRolloverSteps
from broker.services.problems import Problem, ProblemCode
from tests.support.csrs import fresh_key
from tests.support.desk import Desk
from tests.support.succeeding import renew

PACE = Pace(per_minute=120, wave_size=5)


class Broker:
    """Has read whatever the test says."""

    def __init__(self) -> None:
        self.trusted_in_force: InForce | None = None


class Operator:
    """The command line and the service at one desk."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.broker = Broker()
        self.rollovers = CaRollovers(desk.registry, desk.clock)
        self.steps = CaRolloverSteps(desk.registry, self.broker, desk.clock)  # type: ignore[arg-type]

    async def start(self) -> Rollover:
        planned = await self.rollovers.planned(PACE)
        begun = (await self.rollovers.start(planned)).rollover
        assert begun is not None
        return begun

    async def settle(self) -> Phase:
        """The broker reads everything, and the service takes every step."""
        while True:
            rollover = await self.desk.read("ca_rollover")
            self.broker.trusted_in_force = in_force(rollover)
            if await self.steps.advance() is None:
                found = await self.desk.read("ca_rollover")
                phase: Phase = found.phase
                return phase

    async def moving(self) -> None:
        await self.start()
        assert await self.settle() is Phase.MOVING

    async def move(self, device_id: str = "lamp-A1") -> None:
        """The device renews, and gets a certificate of the next authority."""
        await renew(self.desk, fresh_key(), device_id)
        newest = (await self.desk.certificates(device_id))[-1]
        await self.desk.write(("save_certificate", replace(newest, generation=2)))
        await self.desk.confirm(device_id, newest.certificate_sha256)


@pytest.fixture
def operator(desk: Desk) -> Operator:
    return Operator(desk)


async def problem(asking: object) -> ProblemCode:
    with pytest.raises(Problem) as caught:
        await asking  # type: ignore[misc]
    return caught.value.code


async def test_a_start_that_is_repeated_is_the_same(operator: Operator) -> None:
    first = await operator.start()
    assert (first.old, first.new, first.per_minute, first.wave_size) == (1, 2, 120, 5)
    operator.desk.clock.at += timedelta(hours=1)
    assert await operator.start() == first
    assert len(await operator.desk.events()) == 1


async def test_a_start_that_was_overtaken_says_so(operator: Operator) -> None:
    planned = await operator.rollovers.planned(PACE)
    other = replace(planned, new=9)
    assert await problem(operator.rollovers.start(other)) is ProblemCode.ROLLOVER_STATE


async def test_without_a_rollover_there_is_nothing_to_do(operator: Operator) -> None:
    assert (await operator.rollovers.standing()).rollover is None
    rollovers = operator.rollovers
    for act in (rollovers.finish(0), rollovers.cancel(), rollovers.pause(), rollovers.resume()):
        assert await problem(act) is ProblemCode.ROLLOVER_STATE
    assert await operator.steps.advance() is None


async def test_only_what_the_broker_has_read_moves_it_on(operator: Operator) -> None:
    begun = await operator.start()
    for trusted in (None, InForce(1, frozenset({1})), InForce(2, frozenset({1, 2}))):
        operator.broker.trusted_in_force = trusted
        assert await operator.steps.advance() is None
    operator.broker.trusted_in_force = in_force(begun)
    assert await operator.steps.advance() is Phase.SWITCHING
    # The service has to issue by the new one before anything else happens.
    assert await operator.steps.advance() is None


async def test_those_who_are_left_are_told_at_the_pace_that_was_asked_for(
    operator: Operator,
) -> None:
    await operator.desk.join("A1")
    await operator.moving()
    standing = await operator.rollovers.standing()
    campaign = standing.campaign
    assert campaign is not None
    assert (campaign.per_minute, campaign.wave_size, campaign.waiting) == (120, 5, 1)
    assert campaign.selection.kind is SelectionKind.DEVICES
    assert (standing.moved, standing.left_names) == (0, (DeviceId("lamp-A1"),))


async def test_a_fleet_of_nobody_is_told_nothing(operator: Operator) -> None:
    await operator.moving()
    assert (await operator.rollovers.standing()).campaign is None


async def test_it_is_finished_when_nobody_is_left(operator: Operator) -> None:
    await operator.desk.join("A1")
    await operator.moving()
    assert await problem(operator.rollovers.finish(0)) is ProblemCode.DEVICES_LEFT
    await operator.move()
    standing = await operator.rollovers.finish(0)
    assert standing.rollover is not None
    assert standing.rollover.phase is Phase.LEAVING
    assert await operator.rollovers.finish(0) == standing
    old, new = await operator.desk.certificates()
    assert (old.state, old.revoked_for) == (CertificateState.REVOKED, RevocationReason.SUPERSEDED)
    assert new.state is CertificateState.ACTIVE
    assert await operator.settle() is Phase.DONE
    codes = [e.code for e in await operator.desk.events() if e.kind is EventKind.CA_ROLLOVER]
    assert codes == ["introducing", "switching", "moving", "leaving", "done"]


async def test_whom_the_operator_gives_up_is_abandoned_and_owed_a_lock_out(
    operator: Operator,
) -> None:
    await operator.desk.join("A1")
    await operator.moving()
    await operator.rollovers.finish(1)
    (lost,) = await operator.desk.certificates()
    assert lost.revoked_for is RevocationReason.ABANDONED
    (owed,) = await operator.desk.read("waiting_lock_outs", 10)
    assert owed.device_id == "lamp-A1"
    assert owed.crl_wanted == await operator.desk.read("counter", "crl.fleet.wanted")
    # It is a member still: it recovers by its key, and nobody suspects it.
    assert (await operator.desk.device()).state is DeviceState.ACTIVE
    revoked = [e for e in await operator.desk.events() if e.kind is EventKind.CERTIFICATE_REVOKED]
    assert [(e.device_id, e.serial_number, e.group, e.code, e.detail) for e in revoked] == [
        ("lamp-A1", "A1", "lamps", "abandoned", f"certificate {lost.serial}")
    ]


async def test_no_fleet_is_counted_while_others_wait_to_write(
    operator: Operator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes a second and more in a large one."""
    await operator.desk.join("A1")
    await operator.moving()
    counted_while_writing: list[bool] = []
    is_writing, write, count = False, operator.desk.registry.write, CaRolloverRows.count_moved

    async def watched(work: Callable[[WriteTransaction], Any]) -> Any:
        def with_mark(tx: WriteTransaction) -> Any:
            nonlocal is_writing
            is_writing = True
            try:
                return work(tx)
            finally:
                is_writing = False

        return await write(with_mark)

    def noted(self: CaRolloverRows, *arguments: Any) -> tuple[int, int]:
        counted_while_writing.append(is_writing)
        return count(self, *arguments)

    monkeypatch.setattr(operator.desk.registry, "write", watched)
    monkeypatch.setattr(CaRolloverRows, "count_moved", noted)
    await operator.rollovers.pause()
    await operator.rollovers.resume()
    assert await problem(operator.rollovers.finish(0)) is ProblemCode.DEVICES_LEFT
    await operator.rollovers.finish(1)
    assert counted_while_writing == [False] * 4


async def test_an_unproven_certificate_of_the_old_authority_lapses(operator: Operator) -> None:
    await operator.desk.enroll("A1")
    await operator.moving()
    await operator.rollovers.finish(1)
    await operator.desk.lapsing.revoke_unconfirmed()
    (lapsed,) = await operator.desk.certificates()
    assert lapsed.revoked_for is RevocationReason.NEVER_CONFIRMED
    assert (await operator.desk.device()).state is DeviceState.REGISTERED


async def test_a_pause_holds_the_campaign_and_nothing_else(operator: Operator) -> None:
    await operator.desk.join("A1")
    await operator.moving()
    first = await operator.rollovers.pause()
    paused = await operator.rollovers.pause()
    assert first == paused
    assert paused.campaign is not None
    assert paused.campaign.state is CampaignState.PAUSED
    assert paused.rollover is not None
    assert in_force(paused.rollover).trusted == {1, 2}
    resumed = await operator.rollovers.resume()
    assert resumed.campaign is not None
    assert resumed.campaign.state is CampaignState.RUNNING


async def test_resume_tells_those_anew_whom_no_campaign_is_about(operator: Operator) -> None:
    await operator.moving()
    await operator.desk.join("A1")  # a claim that was under way at the switch
    resumed = await operator.rollovers.resume()
    assert resumed.campaign is not None
    assert resumed.campaign.waiting == 1


async def test_the_service_tells_them_by_itself_once_in_a_while(operator: Operator) -> None:
    await operator.moving()
    await operator.desk.join("A1")
    await operator.steps.advance()
    assert (await operator.rollovers.standing()).campaign is None
    operator.desk.clock.at += timedelta(seconds=601)
    await operator.steps.advance()
    assert (await operator.rollovers.standing()).campaign is not None


async def test_cancelled_before_anything_was_issued_it_is_over_at_once(
    operator: Operator,
) -> None:
    await operator.start()
    await operator.rollovers.cancel()
    assert await operator.settle() is Phase.DONE
    assert in_force(await operator.desk.read("ca_rollover")) == InForce(1, frozenset({1}))


async def test_cancelled_it_brings_back_who_has_moved(operator: Operator) -> None:
    await operator.desk.join("A1")
    await operator.moving()
    await operator.move()
    first = await operator.rollovers.cancel()
    assert await operator.rollovers.cancel() == first
    assert await operator.settle() is Phase.MOVING
    standing = await operator.rollovers.standing()
    assert standing.rollover is not None
    assert (standing.rollover.old, standing.rollover.new) == (2, 1)
    # Its first certificate is in its grace still, and soon it won't let the device in any more.
    assert (standing.moved, standing.left) == (0, 1)
    assert await problem(operator.rollovers.planned(PACE)) is ProblemCode.ROLLOVER_STATE


async def test_doctor_says_when_it_waits_for_the_service(operator: Operator) -> None:
    registry, clock = operator.desk.registry, operator.desk.clock
    assert await examine_ca_rollover(registry, clock) == []
    await operator.start()
    assert await examine_ca_rollover(registry, clock) == []
    clock.at += PATIENCE
    (finding,) = await examine_ca_rollover(registry, clock)
    assert finding.level is Level.WARNING
    await operator.settle()
    (finding,) = await examine_ca_rollover(registry, clock)
    assert finding.level is Level.OK
