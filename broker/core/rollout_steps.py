"""What a rollout does next, from how many of its devices stand where."""

from dataclasses import dataclass

from broker.core.rollout import (
    FAILED,
    FINISHED,
    IN_FLIGHT,
    OPEN,
    Progress,
    Rollout,
    Tally,
    count,
)
from broker.core.rollout_pace import may_open_next

_QUEUED = frozenset({Progress.QUEUED})
_INSTALLED = frozenset({Progress.INSTALLED})
_UNCOUNTED = frozenset({Progress.SKIPPED})
LATE = 1_000_000
"""The wave of those who joined later: judged on its own, so that many successes before don't hide
that all of them fail."""


@dataclass(frozen=True)
class Room:
    """How many may be told by the waves alone."""

    in_waves: int
    """Of those who were meant from the start."""
    late: int
    """Of those who joined later; they come after the last wave."""


def total(tally: Tally) -> int:
    """How many devices were meant from the start and weren't skipped."""
    return sum(
        number
        for (wave, progress), number in tally.items()
        if wave != LATE and progress not in _UNCOUNTED
    )


def room(rollout: Rollout, tally: Tally) -> Room:
    """How many more may be told in the wave that is open."""
    meant = total(tally)
    queued = sum(n for (wave, at), n in tally.items() if wave != LATE and at is Progress.QUEUED)
    limit = rollout.pace.limit(rollout.wave, meant)
    in_waves = max(0, min(queued, limit - (meant - queued)))
    is_last = rollout.wave >= rollout.pace.waves(meant) - 1
    late = count(tally, _QUEUED, LATE) if is_last and queued <= in_waves else 0
    return Room(in_waves, late)


def opens_next_wave(rollout: Rollout, tally: Tally, silent: int) -> bool:
    """Whether the next wave begins now.

    Args:
        silent: how many of those in flight have said nothing for so long that they aren't waited
            for.
    """
    meant = total(tally)
    if rollout.wave >= rollout.pace.waves(meant) - 1 or room(rollout, tally).in_waves:
        return False
    return may_open_next(count(tally, IN_FLIGHT), silent, count(tally, _INSTALLED))


def broken_by(rollout: Rollout, tally: Tally) -> str | None:
    """What the stop rule has found, in a sentence; none while the rollout may go on.

    Each wave is judged on its own, the late joiners too, and then all together.
    """
    meant = total(tally)
    waves = sorted({wave for wave, _ in tally})
    for wave in waves:
        expected = _planned(rollout, wave, meant)
        found = _judge(rollout, tally, wave, expected)
        if found is not None:
            return found
    return _judge(rollout, tally, None, meant + count(tally, frozenset(Progress), LATE))


def _planned(rollout: Rollout, wave: int, meant: int) -> int:
    if wave == LATE:
        return rollout.stop.after
    before = rollout.pace.limit(wave - 1, meant) if wave else 0
    return rollout.pace.limit(wave, meant) - before


def _judge(rollout: Rollout, tally: Tally, wave: int | None, expected: int) -> str | None:
    failed, finished = count(tally, FAILED, wave), count(tally, FINISHED, wave)
    if not rollout.stop.is_broken(failed, finished, expected):
        return None
    whom = {None: "all waves", LATE: "those who joined later"}.get(wave, f"wave {(wave or 0) + 1}")
    return f"{failed} of {finished} that finished failed ({whom}), above {rollout.stop.percent}"


def is_finished(rollout: Rollout, tally: Tally) -> bool:
    """Whether nobody is left who could still be told, or still has to answer."""
    return rollout.enlisted and not rollout.keep_open and count(tally, OPEN) == 0
