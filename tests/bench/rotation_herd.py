"""10,000 devices renew in simulated time: `python -m tests.bench.rotation_herd` prints and plots.

Only the rules run, those of `broker.core.campaign_pace` and of `device_client.schedule`; the same
seed gives the same figures on every machine. What is compared with is a device that renews at
exactly two thirds of the lifetime and asks again each minute.
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from broker.core.campaign import Campaign, CampaignId, Selection, SelectionKind
from broker.core.campaign_pace import given, orders_due, renew_by
from broker.core.certificate_profile import BACKDATING
from device_client.backoff import Backoff
from device_client.schedule import DUE, renewal_time, spread
from device_client.settings import Timing
from tests.bench.bench import Bench
from tests.bench.herd_plot import Panel, Series, picture
from tests.bench.report import Row, as_table, at_most

DEVICES: Final = 10_000
LIFETIME: Final = timedelta(days=90)
GENERATIONS: Final = 6
PER_MINUTE: Final = 600
PLOT: Final = Path(__file__).resolve().parents[2] / "docs" / "rotation-herd.svg"
SEED: Final = 20_260

START: Final = datetime(2026, 1, 1, tzinfo=UTC)
HOUR: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)
DAY: Final = timedelta(days=1)
_TICK: Final = timedelta(seconds=0.5)
"""How often the service looks at its campaigns."""
_ASKING: Final = timedelta(seconds=sum(Timing().answers_s))
"""How long a device waits for an answer before it gives up for now."""
_OFFLINE: Final = 0.1
_BACK_WITHIN: Final = 2 * HOUR

Draw = Callable[[], float]
PerMinute = Counter[int]
"""How many renewals began in each minute since `START`."""


@dataclass(frozen=True)
class Months:
    """The production line: all claimed within one hour, then left to themselves."""

    generations: tuple[PerMinute, ...]
    """Each device's first renewal, its second …"""

    @property
    def together(self) -> PerMinute:
        """All of them."""
        return sum(self.generations, Counter())


def months(draw: Draw, *, jittered: bool) -> Months:
    """Every device renews so many times, each time by its newest certificate."""
    issued = [START + HOUR * draw() for _ in range(DEVICES)]
    generations = []
    for _ in range(GENERATIONS):
        issued = [_renewed_at(each, draw, jittered=jittered) for each in issued]
        generations.append(per_minute(issued))
    return Months(tuple(generations))


def campaign(draw: Draw, *, paced: bool) -> PerMinute:
    """All are ordered to renew; one in ten is switched off, and comes back within two hours."""
    running = Campaign(
        CampaignId(1),
        Selection(SelectionKind.ALL),
        per_minute=PER_MINUTE,
        wave_size=None,
        created_at=START,
        fresh_from=START,
        paced_to=START,
        waiting=DEVICES,
    )
    if not paced:
        return per_minute([_followed_at(START, START, draw) for _ in range(DEVICES)])
    now, followed = START, list[datetime]()
    while len(followed) < DEVICES:
        now += _TICK
        orders = min(orders_due(running, now), DEVICES - len(followed))
        by = renew_by(running, now)
        running = given(running, orders, now)
        followed += [_followed_at(now, by, draw) for _ in range(orders)]
    return per_minute(followed)


def absence(draw: Draw, *, jittered: bool) -> tuple[PerMinute, datetime]:
    """The service is away for the day around which the first generation renews; and when it's
    back. What is counted is what it is asked, and can grant, from then on."""
    back = START + DUE * LIFETIME + DAY / 2
    away = back - DAY
    granted = []
    for _ in range(DEVICES):
        due = _renewed_at(START + HOUR * draw(), draw, jittered=jittered)
        if due < away:
            continue
        granted.append(due if due >= back else _granted_at(due, back, draw, jittered=jittered))
    return per_minute(granted), back


def _renewed_at(issued: datetime, draw: Draw, *, jittered: bool) -> datetime:
    share = draw()
    return renewal_time(issued - BACKDATING, issued + LIFETIME, share if jittered else 0.5)


def _followed_at(ordered: datetime, by: datetime, draw: Draw) -> datetime:
    is_off = draw() < _OFFLINE
    heard = ordered + _BACK_WITHIN * draw() if is_off else ordered
    return spread(heard, by, draw())


def _granted_at(due: datetime, back: datetime, draw: Draw, *, jittered: bool) -> datetime:
    """When the first try after `back` begins."""
    timing = Timing()
    again = Backoff(timing.slow_base_s, timing.slow_cap_s, draw)
    now = due
    while now < back:
        now += _ASKING + timedelta(seconds=again.next()) if jittered else MINUTE
    return now


def per_minute(moments: Sequence[datetime]) -> PerMinute:
    """How many there are in each minute."""
    return Counter((moment - START) // MINUTE for moment in moments)


def peak(counts: PerMinute) -> int:
    """In the worst minute."""
    return max(counts.values(), default=0)


def mean(counts: PerMinute) -> float:
    """A minute, from the first one to the last."""
    return counts.total() / (max(counts) - min(counts) + 1)


@dataclass(frozen=True)
class Herds:
    """All that was simulated."""

    months: Months
    months_exact: Months
    paced: PerMinute
    at_once: PerMinute
    absence: PerMinute
    absence_exact: PerMinute
    back: datetime


def simulate(seed: int = SEED) -> Herds:
    """Everything once; equal seeds give equal herds."""
    draw = random.Random(seed).random
    by_rule, back = absence(draw, jittered=True)
    exact, _ = absence(draw, jittered=False)
    return Herds(
        months(draw, jittered=True),
        months(draw, jittered=False),
        campaign(draw, paced=True),
        campaign(draw, paced=False),
        by_rule,
        exact,
        back,
    )


def rows(herds: Herds) -> list[Row]:
    """What is to hold, with the comparison beside it."""
    first, last = herds.months.generations[0], herds.months.generations[-1]
    exact = peak(herds.months_exact.together)
    found = [
        at_most(
            f"renewals of {DEVICES:,} devices that claimed within an hour, the first time",
            f"peak {peak(first)} a minute, mean {mean(first):.2f}; without jitter peak {exact}",
            peak(first),
            exact / 20,
            "peak <= 1/20 of that without jitter",
        ),
        Row(
            f"- the {GENERATIONS}th time, after {GENERATIONS * 60 * DAY // (30 * DAY)} months",
            f"peak {peak(last)} a minute, mean {mean(last):.2f}; "
            f"without jitter peak {peak(herds.months_exact.generations[-1])}",
        ),
        at_most(
            f"forced rotation at {PER_MINUTE} a minute, one in ten switched off",
            f"peak {peak(herds.paced)} a minute; all at once {peak(herds.at_once):,}",
            peak(herds.paced),
            1.2 * PER_MINUTE,
            "peak <= 1.2 times the pace",
        ),
    ]
    after = since(herds.absence, herds.back)
    exact_after = since(herds.absence_exact, herds.back)
    waiting = sum(count for minute, count in after.items() if minute < 60)
    return [
        *found,
        at_most(
            "renewals after the service was away for the day on which most were due",
            f"peak {peak(after)} a minute, {waiting:,} in the first hour; "
            f"without jitter peak {peak(exact_after):,}",
            peak(after),
            peak(exact_after) / 20,
            "peak <= 1/20 of that without jitter",
        ),
    ]


def since(counts: PerMinute, moment: datetime) -> PerMinute:
    """The counts from `moment` on, by minutes since then."""
    start = (moment - START) // MINUTE
    return Counter({minute - start: n for minute, n in counts.items() if minute >= start})


def daily_peaks(counts: PerMinute) -> list[tuple[float, float]]:
    """For each day the worst minute of it: day, renewals a minute."""
    worst: dict[int, int] = {}
    for minute, count in counts.items():
        day = minute // (24 * 60)
        worst[day] = max(worst.get(day, 0), count)
    return [(day, worst.get(day, 0)) for day in range(max(worst) + 1)]


def _minutes(counts: PerMinute, until: int) -> list[tuple[float, float]]:
    return [(minute, counts[minute]) for minute in range(until)]


def plot(herds: Herds) -> str:
    """The picture of docs/benchmarks.md."""
    after, exact = (since(c, herds.back) for c in (herds.absence, herds.absence_exact))
    rule, other = "Muster", "without jitter"
    panels = (
        Panel(
            f"{DEVICES:,} devices claimed within one hour: the worst minute of each day",
            "days since the claims",
            (
                Series(other, daily_peaks(herds.months_exact.together), is_rule=False),
                Series(rule, daily_peaks(herds.months.together), is_rule=True),
            ),
        ),
        Panel(
            f"A forced rotation of all, at {PER_MINUTE} a minute",
            "minutes since its start",
            (
                Series("all ordered at once", _minutes(herds.at_once, 130), is_rule=False),
                Series(rule, _minutes(herds.paced, 130), is_rule=True),
            ),
        ),
        Panel(
            "The service is back after a day",
            "minutes since its return",
            (
                Series(other, _minutes(exact, 130), is_rule=False),
                Series(rule, _minutes(after, 130), is_rule=True),
            ),
        ),
    )
    return picture("Renewals a minute", panels)


async def measure(_: Bench) -> list[Row]:
    """The rows of the table; the picture is written by the command of its own."""
    return rows(simulate())


def main() -> int:
    """Prints the rows and writes the picture."""
    herds = simulate()
    print(as_table(rows(herds)))
    PLOT.write_text(plot(herds), encoding="utf-8")
    print(f"\n{PLOT}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
