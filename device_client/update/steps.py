"""What an event does to the record: pure, so that each step is written at once or not at all."""

import hashlib
from collections.abc import Set
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import msgspec

from broker.protocol import codec, limits
from broker.protocol.names import DeviceId
from broker.protocol.updates import Assignment, Phase, SoftwareReport, UpdateReport
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.images import Image
from device_client.update.journal import WITHDRAWABLE, Entry, Note, Stage, State, Work

_MAX_OUTBOX: Final = 256
"""Reports; an assignment leaves one that is kept, so that many were never acknowledged."""
_DAY: Final = timedelta(days=1)
_WORTH_WRITING: Final = timedelta(hours=6)
"""Flash wears out: what the director says of the time may be so far behind."""


def taken_up(state: State, assignment: Assignment, at: datetime) -> State:
    """The record with work on an authentic assignment that is newer than all before.

    What was begun and hasn't been switched is over. An assignment of nothing ends just that. The
    same targets for the same rollout are a renewal, and the work goes on.
    """
    if state.work is not None and _is_renewal(state.work, assignment):
        work = _on_terms_of(assignment, state.work)
        return replace(state, sequence=assignment.sequence, work=work)
    if _is_over(state, assignment):
        return replace(state, sequence=assignment.sequence)
    why = UpdateCode.SUPERSEDED if assignment.targets else UpdateCode.CANCELLED
    if state.work is not None:
        work = replace(state.work, why=why, detail=f"By assignment {assignment.sequence}.")
        state = finished(replace(state, work=work), Phase.CANCELLED, at)
    work = Work(
        stage=Stage.CHECKING,
        device_id=DeviceId(assignment.device_id),
        rollout=assignment.rollout,
        sequence=assignment.sequence,
        nonce=assignment.nonce,
        expires=assignment.expires,
    )
    work = _on_terms_of(assignment, work)
    state = replace(state, sequence=assignment.sequence, work=work, refusal=None)
    if not assignment.targets:
        work = replace(work, why=UpdateCode.CANCELLED)
        return finished(replace(state, work=work), Phase.CANCELLED, at)
    return state


def directed(state: State, keyids: Set[str], threshold: int, at: datetime) -> State:
    """The record when root names these keys as the director's.

    Where none of what the former ones signed counts any more, nothing is left to be replayed, and
    their thief may have used up the numbers, or the time: both are counted anew. What they chose
    isn't switched before the new ones say so.
    """
    named = tuple(sorted(keyids))
    if not state.directors or len(keyids & set(state.directors)) >= threshold:
        return replace(state, directors=named)
    work = state.work
    if work is not None and work.stage in WITHDRAWABLE:
        work = replace(work, expires=at)
    return replace(state, directors=named, sequence=0, learned=None, switched=(), work=work)


def learned(state: State, moment: datetime) -> State:
    """The record when the director has said that it's `moment`, or later."""
    if state.learned is not None and moment - state.learned < _WORTH_WRITING:
        return state
    return replace(state, learned=moment)


def moved(state: State, stage: Stage, **changes: object) -> State:
    """The record with the work at another stage."""
    return _with(state, stage=stage, **changes)


def switching(state: State, at: datetime) -> State:
    """The record when the switch begins."""
    return replace(moved(state, Stage.SWITCHING), switched=(*lately_switched(state, at), at))


def lately_switched(state: State, at: datetime) -> tuple[datetime, ...]:
    """When images were switched in the day before."""
    return tuple(each for each in state.switched if timedelta() <= at - each < _DAY)


def noted(state: State, error: UpdateRefused, at: datetime) -> State:
    """The record with a refusal for people."""
    why = Note(code=error.stable_code, message=str(error), remedy=error.remedy, at=at)
    return replace(state, refusal=why)


def chosen(state: State, images: tuple[Image, ...]) -> State:
    """The record when the images have been checked and may be fetched."""
    return _with(state, stage=Stage.DOWNLOADING, images=images)


def failed(state: State, error: UpdateRefused, at: datetime, tried: int) -> State:
    """The record after a try in vain, which begins again with the check; `tried` is how many of
    them count now."""
    state = _with(state, stage=Stage.CHECKING, failures=tried, why=error.why, detail=str(error))
    return noted(state, error, at)


def given_up(state: State, error: UpdateRefused, at: datetime) -> State:
    """The record when the assignment is refused for good."""
    state = _with(state, why=error.why, detail=str(error))
    return noted(finished(state, Phase.REFUSED, at), error, at)


def undoing(state: State, error: UpdateRefused, at: datetime) -> State:
    """The record when what was switched must be switched back."""
    state = _with(state, stage=Stage.ROLLING_BACK, restarts=0, why=error.why, detail=str(error))
    return noted(state, error, at)


def stuck(state: State, error: UpdateRefused, at: datetime) -> State:
    """The record after a try in vain to select what ran before."""
    assert state.work is not None, "only work is undone"  # noqa: S101
    state = _with(state, undo_failures=state.work.undo_failures + 1)
    return noted(state, error, at)


def not_undone(state: State, error: UpdateRefused, at: datetime) -> State:
    """The record when it can't be undone: the final report says so."""
    state = _with(state, why=error.why, detail=str(error))
    return noted(finished(state, Phase.ROLLED_BACK, at), error, at)


def finished(state: State, phase: Phase, at: datetime) -> State:
    """The record without the work, with its one final report; installed, it's what runs."""
    work = state.work
    assert work is not None, "only work is finished"  # noqa: S101
    running = dict(state.running)
    if phase is Phase.INSTALLED:
        for image in work.images:
            before = running.get(image.facts.component)
            counter = before.security_counter if before else 0
            running[image.facts.component] = image.as_running(counter)
    state = replace(state, running=running)
    kept = tuple(each for each in state.outbox if each.is_final)[-_MAX_OUTBOX:]
    entry = _entry(state, work, phase, at)
    return replace(state, work=None, outbox=(*kept, entry))


def progressed(state: State, phase: Phase, at: datetime) -> State:
    """The record with a report of how far it is, in the place of an earlier such one."""
    work = state.work
    assert work is not None, "only work progresses"  # noqa: S101
    kept = tuple(each for each in state.outbox if each.is_final)
    return replace(state, outbox=(*kept, _entry(state, work, phase, at)))


def acknowledged(state: State, report_id: str, said: str = "") -> State:
    """The record without the report that the service has.

    `said` is the id of what it knows by that to run, if it was the last that said so."""
    kept = tuple(each for each in state.outbox if each.report_id != report_id)
    return replace(state, outbox=kept, told=said or state.told)


def software(
    state: State, device_id: DeviceId, certificate_sha256: str, at: datetime
) -> SoftwareReport:
    """What runs, in the words of a report. Its id is the same as long as that is the same, and with
    another certificate another: a service that has forgotten it hears it again."""
    running = {name: msgspec.to_builtins(each) for name, each in sorted(state.running.items())}
    named = codec.encode([device_id, certificate_sha256, running])
    return SoftwareReport(
        report_id=hashlib.sha256(named).hexdigest()[:32],
        device_id=device_id,
        at=at,
        running=_running(state),
        security_counter=_counter(state),
        support_until=_support_until(state),
    )


def _with(state: State, **changes: object) -> State:
    assert state.work is not None, "there is work"  # noqa: S101
    return replace(state, work=replace(state.work, **changes))  # type: ignore[arg-type]


def _on_terms_of(assignment: Assignment, work: Work) -> Work:
    return replace(
        work,
        sequence=assignment.sequence,
        nonce=assignment.nonce,
        expires=assignment.expires,
        targets=assignment.targets,
        not_before=assignment.not_before,
        deadline=assignment.deadline,
        window=assignment.window,
    )


def _is_renewal(work: Work, assignment: Assignment) -> bool:
    known = {(target.path, target.sha256) for target in work.targets}
    wanted = {(target.path, target.sha256) for target in assignment.targets}
    return known == wanted and work.rollout == assignment.rollout


def _is_over(state: State, assignment: Assignment) -> bool:
    """Whether its final report waits for the service, which assigns it anew until it knows that."""
    final = _report_id(assignment, "final")
    return any(entry.report_id == final for entry in state.outbox)


def _report_id(of: Assignment | Work, kind: str) -> str:
    named = f"{of.device_id}\n{of.rollout}\n{of.sequence}\n{of.nonce}\n{kind}"
    return hashlib.sha256(named.encode()).hexdigest()[:32]


def _entry(state: State, work: Work, phase: Phase, at: datetime) -> Entry:
    report_id = _report_id(work, "final" if phase.is_final else phase)
    is_well = phase in (Phase.INSTALLED, Phase.DOWNLOADING, Phase.WAITING)
    report = UpdateReport(
        report_id=report_id,
        device_id=work.device_id,
        rollout=work.rollout,
        sequence=work.sequence,
        phase=phase,
        at=at,
        code=None if is_well else work.why,
        detail=None if is_well or work.detail is None else work.detail[:512],
        running=_running(state),
        security_counter=_counter(state),
        support_until=_support_until(state),
    )
    text = codec.encode(report).decode()
    if len(text) > limits.MAX_STATEMENT:
        # What is longer the service would never take; the verdict counts, and not the list.
        text = codec.encode(replace(report, detail=None, running=None)).decode()
    return Entry(report_id=report_id, sequence=work.sequence, is_final=phase.is_final, text=text)


def _running(state: State) -> dict[str, str]:
    """By path; what came from the factory has none, and goes by its component's name, unless that
    couldn't be a path: it would spoil the whole report."""
    return {
        each.path or component: each.version or ""
        for component, each in state.running.items()
        if each.path or (each.version and not component.startswith("-"))
    }


def _counter(state: State) -> int | None:
    return max((each.security_counter for each in state.running.values()), default=None)


def _support_until(state: State) -> datetime | None:
    ends = [each.support_until for each in state.running.values() if each.support_until]
    return min(ends, default=None)
