"""Reports: the device's own, about what it was given, and counted once."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from broker.core.lifecycle import CertificateState
from broker.core.records import EventKind
from broker.core.rollout import Progress
from broker.protocol import codec
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId
from broker.protocol.statements import report_statement
from broker.protocol.topics import DeviceOrigin
from broker.protocol.updates import Assignment, Phase, ReportKind, ReportRequest, UpdateReport
from tests.support.csrs import fresh_key
from tests.support.desk import Desk
from tests.support.rollouts import UpdateDesk, a_report


@pytest.fixture
async def updates(desk: Desk) -> UpdateDesk:
    """`lamp-1` and `lamp-2` have been told."""
    updates = UpdateDesk(desk)
    await updates.add("lamp-1", "lamp-2")
    await updates.push()
    await updates.director.advance()
    return updates


async def told(updates: UpdateDesk, device: str = "lamp-1") -> Assignment:
    found = await updates.told(device)
    assert found is not None
    return found


async def refusal(updates: UpdateDesk, device: str, report: UpdateReport) -> Code:
    before = await updates.desk.everything()
    with pytest.raises(Refused) as refused:
        await updates.send(device, report)
    assert await updates.desk.everything() == before
    return refused.value.code


async def test_a_report_is_answered_to_the_device_alone_and_committed(updates: UpdateDesk) -> None:
    accepted = await updates.say("lamp-1", Phase.INSTALLED)
    assert (accepted.request_id, accepted.report_id) == ("q", "report-0")
    (reply,) = await updates.desk.replies()
    assert reply.topic == "muster/v1/device/lamp-1/report/accepted"


async def test_repeated_it_is_counted_once_and_answered_each_time(updates: UpdateDesk) -> None:
    report = a_report(await told(updates), Phase.ROLLED_BACK, code="health_check_failed")
    for _ in range(3):
        await updates.send("lamp-1", report)
    view = await updates.view()
    assert view.at(Progress.ROLLED_BACK) == 1
    assert view.codes == {"health_check_failed": 1}
    assert len(await updates.desk.read("reports_of", DeviceId("lamp-1"), 10)) == 1
    assert len(await updates.desk.replies()) == 3
    kinds = [event.kind for event in await updates.desk.events()]
    assert kinds.count(EventKind.UPDATE_ROLLED_BACK) == 1


async def test_a_second_end_changes_no_figure_but_what_runs_is_known(updates: UpdateDesk) -> None:
    assignment = await told(updates)
    await updates.send("lamp-1", a_report(assignment, Phase.INSTALLED, 1))
    back = a_report(assignment, Phase.ROLLED_BACK, 2, running={"lamp/1.0.bin": "1.0"})
    await updates.send("lamp-1", back)
    assert (await updates.part("lamp-1")).progress is Progress.INSTALLED
    known = await updates.desk.read("device_update", DeviceId("lamp-1"))
    assert known.running == {"lamp/1.0.bin": "1.0"}
    assert known.phase is Phase.ROLLED_BACK
    assert known.rolled_back == (assignment.targets[0].sha256,)


async def test_what_runs_is_kept(updates: UpdateDesk) -> None:
    ends = updates.desk.clock.at + timedelta(days=30)
    await updates.say(
        "lamp-1",
        Phase.INSTALLED,
        running={"lamp/2.0.bin": "2.0"},
        security_counter=4,
        support_until=ends,
    )
    known = await updates.desk.read("device_update", DeviceId("lamp-1"))
    assert (known.running, known.security_counter) == ({"lamp/2.0.bin": "2.0"}, 4)
    assert (known.support_until, known.reported_at) == (ends, updates.desk.clock.at)
    assert await updates.desk.read("count_unsupported", ends - timedelta(seconds=1)) == 0
    assert await updates.desk.read("count_unsupported", ends) == 1


async def test_an_older_word_doesn_t_bring_a_device_back(updates: UpdateDesk) -> None:
    assignment = await told(updates)
    early = a_report(assignment, Phase.DOWNLOADING, 1)
    await updates.send("lamp-1", early)
    await updates.send("lamp-1", a_report(assignment, Phase.INSTALLED, 2))
    await updates.send("lamp-1", early)
    assert (await updates.part("lamp-1")).progress is Progress.INSTALLED


async def test_only_the_device_s_own_key_signs_its_reports(updates: UpdateDesk) -> None:
    report = a_report(await told(updates), Phase.INSTALLED)
    with pytest.raises(Refused) as refused:
        await updates.send("lamp-1", report, fresh_key())
    assert refused.value.code is Code.REPORT_SIGNATURE_INVALID
    assert (await updates.part("lamp-1")).progress is Progress.ASSIGNED


async def test_a_key_whose_certificate_is_out_signs_nothing(updates: UpdateDesk) -> None:
    (certificate,) = await updates.desk.certificates("lamp-1")
    held = replace(certificate, held_at=updates.desk.clock.now())
    await updates.desk.write(("save_certificate", held))
    report = a_report(await told(updates), Phase.INSTALLED)
    assert await refusal(updates, "lamp-1", report) is Code.REPORT_SIGNATURE_INVALID


async def test_nobody_reports_for_another(updates: UpdateDesk) -> None:
    theirs = a_report(await told(updates, "lamp-2"), Phase.ROLLED_BACK)
    assert await refusal(updates, "lamp-1", theirs) is Code.REPORT_DEVICE_MISMATCH


async def test_nobody_uses_up_the_id_of_another_s_report(updates: UpdateDesk) -> None:
    for device in ("lamp-1", "lamp-2"):
        await updates.send(device, a_report(await told(updates, device), Phase.INSTALLED, 7))
    assert (await updates.view()).at(Progress.INSTALLED) == 2


@pytest.mark.parametrize("changes", [{"sequence": 2}, {"rollout": "r9"}])
async def test_what_it_was_never_given_is_refused(
    updates: UpdateDesk, changes: dict[str, Any]
) -> None:
    report = a_report(await told(updates), Phase.INSTALLED, **changes)
    assert await refusal(updates, "lamp-1", report) is Code.ASSIGNMENT_UNKNOWN


async def test_the_same_id_with_other_words_is_refused(updates: UpdateDesk) -> None:
    assignment = await told(updates)
    await updates.send("lamp-1", a_report(assignment, Phase.INSTALLED, 1))
    other = a_report(assignment, Phase.ROLLED_BACK, 1)
    assert await refusal(updates, "lamp-1", other) is Code.REPORT_CONFLICT


async def test_a_device_s_clock_may_say_anything(updates: UpdateDesk) -> None:
    for device, year in (("lamp-1", 1), ("lamp-2", 9999)):
        odd = datetime(year, 12, 31, tzinfo=UTC)
        await updates.say(device, Phase.INSTALLED, at=odd, support_until=odd, running={})
        assert await updates.desk.read("device_update", DeviceId(device)) is not None
        assert await updates.desk.read("reports_of", DeviceId(device), 1)


class TestWhatRuns:
    async def test_a_device_that_never_had_an_update_says_what_it_runs(
        self, updates: UpdateDesk
    ) -> None:
        await updates.add("lamp-9")
        accepted = await updates.tell("lamp-9", {"main": "1.0"}, security_counter=2)
        assert accepted.report_id == "software-lamp-9"
        known = await updates.desk.read("device_update", DeviceId("lamp-9"))
        assert (known.running, known.security_counter) == ({"main": "1.0"}, 2)
        assert (known.reported_at, known.phase) == (updates.desk.clock.at, None)

    async def test_it_changes_nothing_else(self, updates: UpdateDesk) -> None:
        await updates.say("lamp-1", Phase.ROLLED_BACK, code="health_failed")
        before = await updates.desk.read("device_update", DeviceId("lamp-1"))
        await updates.tell("lamp-1", {"main": "1.0"})
        after = await updates.desk.read("device_update", DeviceId("lamp-1"))
        assert after == replace(before, running={"main": "1.0"})
        assert (await updates.part("lamp-1")).progress is Progress.ROLLED_BACK

    async def test_nobody_says_it_for_another(self, updates: UpdateDesk) -> None:
        for device, key, code in (
            ("lamp-2", None, Code.REPORT_DEVICE_MISMATCH),
            ("lamp-1", fresh_key(), Code.REPORT_SIGNATURE_INVALID),
        ):
            with pytest.raises(Refused) as refused:
                await updates.tell("lamp-1", {"main": "1.0"}, origin=device, key=key)
            assert refused.value.code is code

    async def test_who_copied_an_old_key_keeps_no_update_away_by_it(
        self, updates: UpdateDesk
    ) -> None:
        desk, device = updates.desk, DeviceId("lamp-9")
        await updates.add(device)
        (former,) = await desk.read("certificates_of", [device])
        replaced = {"state": CertificateState.SUPERSEDED, "confirmed_at": desk.clock.at}
        until = desk.clock.at + timedelta(days=1)
        await desk.write(("save_certificate", replace(former, grace_until=until, **replaced)))
        before = await desk.read("device_update", device)
        accepted = await updates.tell(device, {"lamp/2.0.bin": "2.0"})
        assert accepted.report_id == "software-lamp-9"
        assert await desk.read("device_update", device) == before

    async def test_a_report_of_an_update_doesn_t_pass_for_one(self, updates: UpdateDesk) -> None:
        """It was signed as something else."""
        text = codec.encode(a_report(await told(updates), Phase.INSTALLED, running={})).decode()
        with pytest.raises(Refused) as refused:
            await updates.send_text("lamp-1", text, ReportKind.SOFTWARE, report_statement)
        assert refused.value.code is Code.REPORT_SIGNATURE_INVALID


async def test_what_isn_t_a_report_is_refused(updates: UpdateDesk) -> None:
    request = ReportRequest(request_id="q", report="{", signature="AAAA")
    with pytest.raises(Refused) as refused:
        await updates.reports.report(DeviceOrigin(DeviceId("lamp-1")), request)
    assert refused.value.code is Code.PAYLOAD_MALFORMED
    assert codec.request_id_of(codec.encode(request)) == "q"
