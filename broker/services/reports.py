"""A report: what became of an assignment, or what runs, in the device's own signed words.

Nothing else is ever counted as an installation. However often a device repeats itself, and however
many final reports it makes of one assignment, one is counted.
"""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from broker.core.lifecycle import CertificateState
from broker.core.possession import signer_among
from broker.core.records import Certificate, Device, Event, EventKind, Reply
from broker.core.rollout import PROGRESS_TRANSITIONS, Progress, next_progress
from broker.core.update_records import DeviceUpdate, GivenAssignment, KnownReport, Part
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.protocol import codec, topics
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId
from broker.protocol.statements import report_statement, software_statement
from broker.protocol.topics import Desired, DeviceOrigin, Operation, Outcome, desired_topic
from broker.protocol.updates import (
    Phase,
    ReportAccepted,
    ReportKind,
    ReportRequest,
    SoftwareReport,
    UpdateReport,
)
from broker.protocol.zones import Zone

EVENTS: Final = {
    Phase.INSTALLED: EventKind.UPDATE_INSTALLED,
    Phase.ROLLED_BACK: EventKind.UPDATE_ROLLED_BACK,
    Phase.REFUSED: EventKind.UPDATE_REFUSED,
    Phase.CANCELLED: EventKind.UPDATE_CANCELLED,
}
_ROLLED_BACK_KEPT: Final = 16
_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)


class ReportService:
    """Answers `report` requests of the fleet zone."""

    def __init__(self, registry: Registry, clock: Clock, new_id: Callable[[], str]) -> None:
        self._registry = registry
        self._clock = clock
        self._new_id = new_id

    async def report(self, origin: DeviceOrigin, request: ReportRequest) -> Reply:
        """The accepted answer, committed to the outbox; reporting again changes nothing.

        Raises:
            Refused: it isn't the device's own, or is about an assignment that it never had.
            RegistryError: the registry failed; nothing was changed.
        """
        if request.kind is ReportKind.SOFTWARE:
            return await self._software(origin, request)
        report = codec.decode(request.report.encode(), UpdateReport)
        await self._refuse_foreign(origin, report.device_id, request, report_statement)
        return await self._registry.write(lambda tx: self._report(tx, origin, request, report))

    async def _software(self, origin: DeviceOrigin, request: ReportRequest) -> Reply:
        report = codec.decode(request.report.encode(), SoftwareReport)
        by = await self._refuse_foreign(origin, report.device_id, request, software_statement)

        def work(tx: WriteTransaction) -> Reply:
            now = self._clock.now()
            # An old key may have been copied. Nobody would see that it lies, and rollouts would
            # pass the device by; which says it again by its next certificate.
            if by.state is not CertificateState.SUPERSEDED:
                known = tx.device_update(origin.device_id) or DeviceUpdate(origin.device_id)
                tx.save_device_update(_running(replace(known, reported_at=now), report))
            return self._answer(tx, origin, request, report.report_id, now)

        return await self._registry.write(work)

    async def _refuse_foreign(
        self,
        origin: DeviceOrigin,
        named: str,
        request: ReportRequest,
        statement: Callable[[str], bytes],
    ) -> Certificate:
        """By which certificate the report is the device's own, in its name and by its key."""
        if named != origin.device_id:
            raise Refused(Code.REPORT_DEVICE_MISMATCH)
        now = self._clock.now()
        live = await self._registry.read(lambda view: _live(view, origin.device_id, now))
        invalid = Code.REPORT_SIGNATURE_INVALID
        return signer_among(reversed(live), statement(request.report), request.signature, invalid)

    def _report(
        self,
        tx: WriteTransaction,
        origin: DeviceOrigin,
        request: ReportRequest,
        report: UpdateReport,
    ) -> Reply:
        now = self._clock.now()
        sha256 = hashlib.sha256(request.report.encode()).hexdigest()
        known = tx.report(origin.device_id, report.report_id)
        if known is not None and known.sha256 != sha256:
            raise Refused(Code.REPORT_CONFLICT)
        if known is None:
            _take(tx, origin.device_id, report, sha256, now)
        return self._answer(tx, origin, request, report.report_id, now)

    def _answer(
        self,
        tx: WriteTransaction,
        origin: DeviceOrigin,
        request: ReportRequest,
        report_id: str,
        now: datetime,
    ) -> Reply:
        accepted = ReportAccepted(request_id=request.request_id, report_id=report_id)
        topic = topics.answer_topic(topics.device_topic(origin, Operation.REPORT), Outcome.ACCEPTED)
        reply = Reply(self._new_id(), Zone.FLEET, topic, codec.encode(accepted), now)
        tx.add_reply(reply)
        return reply


def _live(view: ReadTransaction, device_id: DeviceId, now: datetime) -> list[Certificate]:
    return [each for each in view.certificates_of([device_id]) if each.is_live(now)]


def _take(
    tx: WriteTransaction, device_id: DeviceId, report: UpdateReport, sha256: str, now: datetime
) -> None:
    device, given = tx.device(device_id), tx.given_assignment(device_id, report.sequence)
    if device is None or given is None or given.rollout != report.rollout:
        raise Refused(Code.ASSIGNMENT_UNKNOWN)
    if tx.final_report(device_id, report.sequence) is not None:
        # It has ended already: a later word about it changes no figure, but what runs now counts.
        _keep_state(tx, device_id, given, report, now)
        return
    _move_part(tx, given, report, now)
    _keep_state(tx, device_id, given, report, now)
    if report.phase.is_final:
        tx.add_report(_kept(device_id, report, sha256, now))
        _settle(tx, given, now)
        tx.add_event(_event(device, report, now))


def _move_part(
    tx: WriteTransaction, given: GivenAssignment, report: UpdateReport, now: datetime
) -> None:
    part = tx.part(given.rollout, given.device_id)
    if part is None or not _is_about(tx, part, given):
        return
    progress = next_progress(part.progress, report.phase)
    if progress is part.progress and not report.phase.is_final:
        return
    is_ours = progress in (Progress.CANCELLING, Progress.CANCELLED)
    code = report.code or (part.code if is_ours else None)
    tx.save_part(replace(part, progress=progress, changed_at=now, code=code, detail=report.detail))


def _is_about(tx: WriteTransaction, part: Part, given: GivenAssignment) -> bool:
    """Whether the part stands or falls with this assignment: it's the last, or the one that the
    last calls back."""
    if part.sequence is None or (part.progress, Phase.INSTALLED) not in PROGRESS_TRANSITIONS:
        return False
    if part.sequence == given.sequence:
        return True
    last = tx.given_assignment(part.device_id, part.sequence)
    return last is not None and last.calls_back == given.sequence


def _keep_state(
    tx: WriteTransaction,
    device_id: DeviceId,
    given: GivenAssignment,
    report: UpdateReport,
    now: datetime,
) -> None:
    known = tx.device_update(device_id) or DeviceUpdate(device_id)
    rolled_back = list(known.rolled_back)
    if report.phase is Phase.ROLLED_BACK:
        rolled_back += [sha256 for _, sha256 in given.targets if sha256 not in rolled_back]
    elif report.phase is Phase.INSTALLED:
        passed = {sha256 for _, sha256 in given.targets}
        rolled_back = [sha256 for sha256 in rolled_back if sha256 not in passed]
    changed = replace(
        known,
        reported_at=now,
        phase=report.phase,
        code=report.code,
        rolled_back=tuple(rolled_back[-_ROLLED_BACK_KEPT:]),
    )
    tx.save_device_update(_running(changed, report))


def _running(known: DeviceUpdate, report: UpdateReport | SoftwareReport) -> DeviceUpdate:
    """The same with what the report says that runs, if it says it."""
    if report.running is None:
        return known
    return replace(
        known,
        running=report.running,
        security_counter=report.security_counter,
        support_until=_plausible(report.support_until),
    )


def _settle(tx: WriteTransaction, given: GivenAssignment, now: datetime) -> None:
    """Nothing is left to say to the device about it; the broker may forget it."""
    tx.save_assignment(replace(given, settled_at=given.settled_at or now))
    known = tx.device_update(given.device_id)
    last = tx.given_assignment(given.device_id, known.sequence) if known else None
    if last is None or last.rollout != given.rollout:
        return
    if last.sequence == given.sequence or last.calls_back == given.sequence:
        tx.save_assignment(replace(last, settled_at=last.settled_at or now))
        tx.retain({desired_topic(given.device_id, Desired.UPDATE): b""})


def _kept(device_id: DeviceId, report: UpdateReport, sha256: str, now: datetime) -> KnownReport:
    return KnownReport(
        device_id=device_id,
        report_id=report.report_id,
        sha256=sha256,
        rollout=report.rollout,
        sequence=report.sequence,
        phase=report.phase,
        at=_plausible(report.at) or now,
        received_at=now,
        code=report.code,
        detail=report.detail,
    )


def _event(device: Device, report: UpdateReport, now: datetime) -> Event:
    what = ", ".join(f"{path} {version}" for path, version in (report.running or {}).items())
    about = f"rollout {report.rollout}"
    said = report.detail or (f"runs {what}" if what else "")
    return Event(
        at=now,
        kind=EVENTS[report.phase],
        device_id=device.id,
        serial_number=device.serial,
        group=device.group,
        code=report.code,
        detail=f"{about}: {said}" if said else about,
    )


def _plausible(moment: datetime | None) -> datetime | None:
    """A device's clock may say anything; a database can't keep all of it."""
    if moment is None or 1970 <= moment.year < 9000:
        return moment
    return _EARLIEST if moment.year < 1970 else _LATEST
