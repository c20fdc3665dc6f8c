"""How fast, and when to stop: on whole simulated rollouts, whatever devices report."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.rollout import (
    FAILED,
    FINISHED,
    IN_FLIGHT,
    Progress,
    Rollout,
    Selection,
    Timing,
    count,
)
from broker.core.rollout_pace import Bucket, Pace, StopRule, may_open_next, refilled
from broker.core.rollout_steps import LATE, broken_by, is_finished, opens_next_wave, room

NOW = datetime(2026, 3, 1, tzinfo=UTC)
QUEUED = frozenset({Progress.QUEUED})

percents = st.lists(st.floats(0.1, 99.9), min_size=0, max_size=4, unique=True).map(
    lambda some: (*sorted(some), 100.0)
)
paces = st.one_of(
    percents.map(lambda percent: Pace(percent=percent)),
    st.integers(1, 40).map(lambda size: Pace(wave_size=size)),
)


def a_rollout(pace: Pace, stop: StopRule) -> Rollout:
    return Rollout("r", 1, (), Selection(everyone=True), pace, Timing(), stop, NOW, enlisted=True)


class Fleet:
    """Devices by what happens to them, driven by the rules under test alone."""

    def __init__(self, rollout: Rollout, devices: int, late: int) -> None:
        self.rollout = rollout
        self.places = [(0, Progress.QUEUED)] * devices + [(LATE, Progress.QUEUED)] * late

    @property
    def tally(self) -> dict[tuple[int, Progress], int]:
        return {place: self.places.count(place) for place in set(self.places)}

    def tell(self) -> int:
        """As the director does: everybody for whom there is room."""
        left = room(self.rollout, self.tally)
        queue = [n for n, place in enumerate(self.places) if place == (0, Progress.QUEUED)]
        late = [n for n, place in enumerate(self.places) if place == (LATE, Progress.QUEUED)]
        chosen = queue[: left.in_waves] + late[: left.late]
        for number in chosen:
            wave = max(self.places[number][0], self.rollout.wave)
            self.places[number] = (wave, Progress.ASSIGNED)
        return len(chosen)

    def report(self, number: int, fails: bool) -> None:
        wave, _ = self.places[number]
        self.places[number] = (wave, Progress.ROLLED_BACK if fails else Progress.INSTALLED)


@settings(max_examples=150)
@given(
    pace=paces,
    devices=st.integers(1, 120),
    late=st.integers(0, 20),
    above=st.floats(0, 1),
    after=st.integers(1, 30),
    failing=st.floats(0, 1),
    seed=st.integers(0, 1 << 30),
)
def test_a_rollout_ends_or_is_stopped_and_never_runs_ahead_of_its_reports(
    pace: Pace, devices: int, late: int, above: float, after: int, failing: float, seed: int
) -> None:
    draw = random.Random(seed)
    fleet = Fleet(a_rollout(pace, StopRule(above, after)), devices, late)
    for _ in range(2000):
        if broken_by(fleet.rollout, fleet.tally):
            failed, finished = count(fleet.tally, FAILED), count(fleet.tally, FINISHED)
            assert failed > 0
            assert finished > 0
            return
        fleet.tell()
        told = devices + late - count(fleet.tally, QUEUED)
        if fleet.rollout.wave < pace.waves(devices) - 1:
            assert told <= pace.limit(fleet.rollout.wave, devices)
        flying = [n for n, place in enumerate(fleet.places) if place[1] in IN_FLIGHT]
        for number in flying[: draw.randint(1, 10)]:
            fleet.report(number, draw.random() < failing)
        if is_finished(fleet.rollout, fleet.tally):
            assert count(fleet.tally, FINISHED) == devices + late
            return
        if opens_next_wave(fleet.rollout, fleet.tally, silent=0):
            assert count(fleet.tally, IN_FLIGHT) == 0
            fleet.rollout = replace(fleet.rollout, wave=fleet.rollout.wave + 1)
    raise AssertionError("the rollout got stuck")


@given(pace=paces, devices=st.integers(1, 200))
def test_waves_rise_to_everybody(pace: Pace, devices: int) -> None:
    limits = [pace.limit(wave, devices) for wave in range(pace.waves(devices))]
    assert limits == sorted(limits)
    assert limits[0] >= 1
    assert limits[-1] == devices


@given(
    pace=paces,
    devices=st.integers(1, 200),
    above=st.floats(0, 0.99),
    after=st.integers(1, 500),
)
def test_a_wave_in_which_all_failed_is_the_last(
    pace: Pace, devices: int, above: float, after: int
) -> None:
    fleet = Fleet(a_rollout(pace, StopRule(above, after)), devices, 0)
    fleet.tell()
    for number, (_, progress) in enumerate(fleet.places):
        if progress is Progress.ASSIGNED:
            fleet.report(number, True)
    assert broken_by(fleet.rollout, fleet.tally)


def test_late_joiners_who_all_fail_stop_it_however_many_succeeded_before() -> None:
    rollout = a_rollout(Pace(), StopRule(0.05, 10))
    tally = {(0, Progress.INSTALLED): 100_000, (LATE, Progress.ROLLED_BACK): 9}
    assert broken_by(rollout, tally) is None
    tally[LATE, Progress.ROLLED_BACK] = 10
    assert "joined later" in str(broken_by(rollout, tally))


def test_what_was_sent_is_no_success_and_no_failure() -> None:
    rollout = a_rollout(Pace(), StopRule(0, 1))
    assert broken_by(rollout, {(0, Progress.ASSIGNED): 50, (0, Progress.DOWNLOADING): 50}) is None
    assert broken_by(rollout, {(0, Progress.CANCELLED): 50, (0, Progress.SKIPPED): 50}) is None


@pytest.mark.parametrize("others", range(25))
def test_the_default_bears_one_failure_in_a_small_fleet_whenever_it_comes(others: int) -> None:
    rollout = a_rollout(Pace(), StopRule())
    waiting = {(0, Progress.ASSIGNED): 24 - others, (0, Progress.INSTALLED): others}
    assert broken_by(rollout, waiting | {(0, Progress.ROLLED_BACK): 1}) is None
    assert others < 20 or broken_by(rollout, waiting | {(0, Progress.ROLLED_BACK): 3})


@given(
    per_minute=st.integers(1, 10_000),
    pauses=st.lists(st.floats(0, 300), max_size=50),
)
def test_a_rate_is_kept_over_any_time(per_minute: int, pauses: list[float]) -> None:
    pace, bucket, now, told = Pace(per_minute=per_minute), None, NOW, 0
    for pause in pauses:
        now += timedelta(seconds=pause)
        filled = refilled(pace, bucket, now)
        taken = int(filled.tokens)
        told += taken
        bucket = Bucket(filled.tokens - taken, now)
    passed_s = (now - NOW).total_seconds()
    assert told <= per_minute * (passed_s + 10) / 60 + 1


def test_a_clock_that_is_set_back_gives_nothing() -> None:
    bucket = Bucket(0.5, NOW)
    assert refilled(Pace(per_minute=60), bucket, NOW - timedelta(days=1)).tokens == 0.5


@pytest.mark.parametrize(
    ("in_flight", "silent", "installed", "opens"),
    [(0, 0, 3, True), (1, 0, 3, False), (1, 1, 3, True), (4, 4, 0, False), (0, 0, 0, True)],
)
def test_when_the_next_wave_opens(in_flight: int, silent: int, installed: int, opens: bool) -> None:
    assert may_open_next(in_flight, silent, installed) is opens


@pytest.mark.parametrize("percent", [(), (50,), (0, 100), (50, 20, 100), (10, 10, 100)])
def test_percentages_that_make_no_sense_are_refused(percent: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="rise"):
        Pace(percent=percent)
