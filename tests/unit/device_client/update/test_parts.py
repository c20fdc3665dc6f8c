"""The small parts: when to switch, the journal's table, configuration, restarts, programs."""

import asyncio
import itertools
import re
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.protocol.names import DeviceId
from device_client.errors import ArgumentInvalid, StateUnusable
from device_client.finishing import to_its_end
from device_client.update import canonical, commands, config
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.health import Both, CommandCheck, Line, OnlineCheck
from device_client.update.images import Running
from device_client.update.journal import NEXT, Journal, Stage, State, StepInvalid, Work
from device_client.update.restarting import NoRestart, Reboot, ServiceRestart
from device_client.update.timing import switch_time
from tests.support.update_repository import MadeRepository
from tests.support.waiting import eventually

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
WORK = Work(
    device_id=DeviceId("meter-1"),
    rollout="spring",
    sequence=1,
    nonce="0123456789abcdef",
    stage=Stage.CHECKING,
    expires=NOON + timedelta(days=7),
)


class TestSwitchTime:
    def test_at_once_without_conditions(self) -> None:
        assert switch_time(WORK, NOON) == NOON

    def test_not_before(self) -> None:
        later = NOON + timedelta(hours=3)
        assert switch_time(replace(WORK, not_before=later), NOON) == later
        assert switch_time(replace(WORK, not_before=NOON - timedelta(1)), NOON) == NOON

    @pytest.mark.parametrize(
        ("window", "hour", "expected"),
        [
            ("11:00-13:00", 12, 12),
            ("13:00-14:00", 12, 13),
            ("09:00-12:00", 12, 24 + 9),
            ("22:00-04:00", 12, 22),
            ("22:00-04:00", 23, 23),
            ("22:00-04:00", 3, 3),
            ("22:00-04:00", 4, 22),
            ("12:00-12:00", 15, 15),
        ],
    )
    def test_window(self, window: str, hour: int, expected: int) -> None:
        midnight = NOON.replace(hour=0)
        work = replace(WORK, window=window)
        found = switch_time(work, midnight + timedelta(hours=hour))
        assert found == midnight + timedelta(hours=expected)

    def test_deadline_comes_before_the_window(self) -> None:
        deadline = NOON + timedelta(hours=2)
        work = replace(WORK, window="22:00-23:00", deadline=deadline)
        assert switch_time(work, NOON) == deadline
        assert switch_time(work, deadline + timedelta(hours=1)) == deadline + timedelta(hours=1)

    def test_deadline_does_not_hurry_an_open_window(self) -> None:
        work = replace(WORK, window="13:00-14:00", deadline=NOON + timedelta(days=3))
        assert switch_time(work, NOON) == NOON + timedelta(hours=1)

    @given(
        now=st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)),  # noqa: DTZ001
        window=st.tuples(st.times(), st.times()).map(lambda x: f"{x[0]:%H:%M}-{x[1]:%H:%M}"),
    )
    def test_never_in_the_past_and_never_more_than_a_day_off(
        self, now: datetime, window: str
    ) -> None:
        moment = now.replace(tzinfo=UTC)
        found = switch_time(replace(WORK, window=window), moment)
        assert timedelta() <= found - moment <= timedelta(days=1)


class TestJournal:
    def opened(self, tmp_path: Path, factory: Running | None = None) -> Journal:
        journal = Journal(tmp_path / "update")
        journal.open({"main": factory} if factory else {})
        return journal

    @pytest.mark.parametrize(
        ("before", "after"), list(itertools.product([None, *Stage], [None, *Stage]))
    )
    def test_takes_the_steps_of_the_table_and_no_others(
        self, tmp_path: Path, before: Stage | None, after: Stage | None
    ) -> None:
        journal = self.opened(tmp_path)
        journal.state = State(work=replace(WORK, stage=before) if before else None)
        state = State(work=replace(WORK, stage=after) if after else None)
        if before is after or after in NEXT[before]:
            assert journal.change(state).stage is after
        else:
            with pytest.raises(StepInvalid):
                journal.change(state)
            assert journal.state.stage is before

    def test_survives_a_restart(self, tmp_path: Path) -> None:
        self.opened(tmp_path).change(State(work=WORK, sequence=7))
        again = self.opened(tmp_path)
        assert again.state.work == WORK
        assert again.state.sequence == 7
        assert not again.was_damaged

    def test_the_factory_s_version_is_what_is_configured_now(self, tmp_path: Path) -> None:
        """And no counter falls by a configuration that knows less."""
        journal = self.opened(tmp_path, Running(version="1.0", security_counter=3))
        journal.change(replace(journal.state, sequence=7))
        again = self.opened(tmp_path, Running(version="1.1", security_counter=2))
        assert again.state.running["main"] == Running(version="1.1", security_counter=3)
        assert self.opened(tmp_path, Running()).state.running["main"].version == "1.0"

    def test_what_was_installed_is_what_runs(self, tmp_path: Path) -> None:
        journal = self.opened(tmp_path, Running(version="1.0"))
        installed = Running(path="meter/2/image", version="2.0")
        journal.change(replace(journal.state, running={"main": installed}))
        assert self.opened(tmp_path, Running(version="1.1")).state.running["main"] == installed

    @pytest.mark.parametrize("content", [b"", b"x", b"0" * 64 + b"\n{}", b"\xff" * 2_000_000])
    def test_a_damaged_record_leaves_the_one_before(self, tmp_path: Path, content: bytes) -> None:
        journal = self.opened(tmp_path)
        journal.change(State(work=WORK))
        journal.change(State(work=replace(WORK, stage=Stage.DOWNLOADING)))
        (tmp_path / "update" / f"state.{journal.state.generation % 2}").write_bytes(content)
        again = self.opened(tmp_path)
        assert again.was_damaged
        assert again.state.work == WORK


class TestConfig:
    def test_is_remembered_and_merged(self, tmp_path: Path) -> None:
        assert config.load(tmp_path) is None
        config.remember(tmp_path, None, "meter", None)
        config.remember(tmp_path, None, None, "b")
        known = config.load(tmp_path)
        assert known is not None
        assert (known.model, known.hw_rev) == ("meter", "b")

    @pytest.mark.parametrize("model", ["", "a b", "x" * 65, "../etc"])
    def test_names_only(self, tmp_path: Path, model: str) -> None:
        with pytest.raises(ArgumentInvalid):
            config.remember(tmp_path, None, model, None)
        assert config.load(tmp_path) is None

    def test_damaged(self, tmp_path: Path) -> None:
        (tmp_path / "device.json").write_bytes(b"{")
        with pytest.raises(StateUnusable):
            config.load(tmp_path)

    def test_root_on_the_command_line_comes_first(self, tmp_path: Path) -> None:
        assert config.first_root(tmp_path, "flashed") == b"flashed"
        given_root = tmp_path / "1.root.json"
        given_root.write_bytes(root := MadeRepository().first_root)
        config.remember_root(tmp_path, given_root)
        assert config.first_root(tmp_path, "flashed") == root


class TestPrograms:
    async def test_health(self) -> None:
        await CommandCheck(("true",), 10).pass_or_fail()
        with pytest.raises(UpdateRefused) as caught:
            await CommandCheck(("false",), 10).pass_or_fail()
        assert caught.value.why is UpdateCode.HEALTH_FAILED

    async def test_a_health_check_that_hangs(self) -> None:
        with pytest.raises(UpdateRefused) as caught:
            await CommandCheck(("sleep", "600"), 0.1).pass_or_fail()
        assert caught.value.why is UpdateCode.HEALTH_TIMED_OUT

    async def test_the_fleet_must_be_reached(self) -> None:
        class Connection:
            async def ping(self) -> None:
                """Answered."""

        line = Line()
        check = Both((OnlineCheck(line, 0.05), CommandCheck(("true",), 10)))
        with pytest.raises(UpdateRefused) as caught:
            await check.pass_or_fail()
        assert caught.value.why is UpdateCode.HEALTH_TIMED_OUT
        with line.up(cast(Any, Connection())):
            await check.pass_or_fail()

    async def test_what_a_program_started_ends_with_it(self, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        argv = ("sh", "-c", f"sleep 600 & echo $! > {note}; wait")
        with pytest.raises(commands.CommandTimedOut):
            await commands.run(argv, 1.0)
        # A kill is delivered when the kernel next runs what it is for.
        await eventually(lambda: not is_alive(note))

    async def test_endless_output_is_cut(self) -> None:
        done = await commands.run(("sh", "-c", "yes | head -c 1000000; echo end"), 20)
        assert len(done.text) <= 4096
        assert done.text.endswith("end\n")

    async def test_restarts(self, tmp_path: Path) -> None:
        await NoRestart().perform()
        await ServiceRestart(("true",), 10).perform()
        with pytest.raises(UpdateRefused):
            await ServiceRestart(("false",), 10).perform()

    async def test_a_reboot_that_does_not_come(self, tmp_path: Path) -> None:
        boot_id = tmp_path / "boot_id"
        boot_id.write_text("one\n")
        reboot = Reboot(("true",), 0.1, boot_id)
        assert reboot.run_id() == "one"
        with pytest.raises(UpdateRefused, match="didn't reboot"):
            await reboot.perform()


def is_alive(note: Path) -> bool:
    """A zombie that nobody has reaped yet isn't."""
    status = Path(f"/proc/{note.read_text().strip()}/status")
    try:
        found = re.search(r"State:\s+(\w)", status.read_text())
    except FileNotFoundError:
        return False
    return found is not None and found[1] != "Z"


@pytest.mark.parametrize("value", [1.5, {"a": 0.1}, "\ud800", b"bytes", {1, 2}])
def test_what_has_no_canonical_form(value: object) -> None:
    with pytest.raises(UpdateRefused) as caught:
        canonical.encode(value)
    assert caught.value.why is UpdateCode.METADATA_MALFORMED


def test_nested_too_deep() -> None:
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(UpdateRefused):
        canonical.encode(value)


async def test_a_step_on_the_disk_is_waited_for_by_who_is_cancelled() -> None:
    """Else the next step would write the same file at the same time."""
    may_end, done = threading.Event(), list[str]()

    def step() -> None:
        may_end.wait(60)
        done.append("step")

    task = asyncio.create_task(to_its_end(asyncio.to_thread(step)))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["step"]
