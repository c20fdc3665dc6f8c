"""Assignments, reports, and what devices run, in the registry."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import RETAINED
from broker.adapters.registry.schema_updates import (
    ASSIGNMENT,
    DEVICE_UPDATE,
    IS_UNSETTLED,
    UPDATE_REPORT,
)
from broker.adapters.registry.session import Part, Row, Upsert
from broker.core.update_records import DeviceUpdate, GivenAssignment, KnownReport
from broker.protocol.names import DeviceId
from broker.protocol.updates import Phase

_A: Final = ASSIGNMENT
_R: Final = UPDATE_REPORT
_D: Final = DEVICE_UPDATE
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_ASSIGNMENT: Final = sa.select(_A).where(
    _A.c.device_id == sa.bindparam("device"),
    _A.c.sequence == sa.bindparam("number", type_=sa.BigInteger),
)
_EXPIRING: Final = (
    sa.select(_A)
    .where(IS_UNSETTLED, _A.c.expires < sa.bindparam("before", type_=sa.BigInteger))
    .order_by(_A.c.expires)
    .limit(_AT_MOST)
)
_OF_DEVICE: Final = sa.select(_R).where(_R.c.device_id == sa.bindparam("device"))
_REPORT: Final = _OF_DEVICE.where(_R.c.report_id == sa.bindparam("wanted"))
_FINAL: Final = _OF_DEVICE.where(_R.c.sequence == sa.bindparam("number", type_=sa.BigInteger))
_REPORTS: Final = _OF_DEVICE.order_by(_R.c.sequence.desc()).limit(_AT_MOST)
_UPDATE: Final = sa.select(_D).where(_D.c.device_id == sa.bindparam("device"))
_UNSUPPORTED: Final = sa.select(sa.func.count()).where(
    _D.c.support_until <= sa.bindparam("now", type_=sa.BigInteger)
)
_BELOW: Final = sa.select(RETAINED.c.topic).where(
    RETAINED.c.topic >= sa.bindparam("from_topic"),
    RETAINED.c.topic < sa.bindparam("to_topic"),
    sa.func.length(RETAINED.c.payload) > 0,
)

_LAST: Final = "z" * 16
"""No level of a topic comes after it, in whatever order."""

SAVE_ASSIGNMENT: Final = Upsert(_A, key=("device_id", "sequence"))
ADD_REPORT: Final = sa.insert(_R).values({c.name: sa.bindparam(c.name) for c in _R.columns})
SAVE_UPDATE: Final = Upsert(_D, key=("device_id",))


class Updates(Part):
    """The port's methods about them, on one transaction."""

    def given_assignment(self, device_id: DeviceId, sequence: int) -> GivenAssignment | None:
        self._session.flush_for(("assignment", device_id, sequence))
        found = self._session.rows(_ASSIGNMENT, {"device": device_id, "number": sequence})
        return _assignment(found[0]) if found else None

    def expiring_assignments(self, before: datetime, limit: int) -> list[GivenAssignment]:
        self._session.flush()
        wanted = {"before": stored(before), "at_most": limit}
        return [_assignment(row) for row in self._session.rows(_EXPIRING, wanted)]

    def save_assignment(self, assignment: GivenAssignment) -> None:
        key = (assignment.device_id, assignment.sequence)
        seen_by = [("assignment", *key)]
        self._session.later(SAVE_ASSIGNMENT, key, _assignment_row(assignment), seen_by)

    def report(self, device_id: DeviceId, report_id: str) -> KnownReport | None:
        self._session.flush_for(("reports", device_id))
        found = self._session.rows(_REPORT, {"device": device_id, "wanted": report_id})
        return _report(found[0]) if found else None

    def final_report(self, device_id: DeviceId, sequence: int) -> KnownReport | None:
        self._session.flush_for(("reports", device_id))
        found = self._session.rows(_FINAL, {"device": device_id, "number": sequence})
        return _report(found[0]) if found else None

    def reports_of(self, device_id: DeviceId, limit: int) -> list[KnownReport]:
        self._session.flush_for(("reports", device_id))
        wanted = {"device": device_id, "at_most": limit}
        return [_report(row) for row in self._session.rows(_REPORTS, wanted)]

    def add_report(self, report: KnownReport) -> None:
        key = (report.device_id, report.report_id)
        self._session.later(ADD_REPORT, key, _report_row(report), [("reports", report.device_id)])

    def device_update(self, device_id: DeviceId) -> DeviceUpdate | None:
        self._session.flush_for(("device_update", device_id))
        found = self._session.rows(_UPDATE, {"device": device_id})
        return update_from(found[0]) if found else None

    def device_updates(self, device_ids: Sequence[DeviceId]) -> list[DeviceUpdate]:
        query = sa.select(_D).where(_D.c.device_id.in_(device_ids)).order_by(_D.c.device_id)
        return [update_from(row) for row in self._session.select(query)]

    def save_device_update(self, update: DeviceUpdate) -> None:
        seen_by = [("device_update", update.device_id)]
        self._session.later(SAVE_UPDATE, update.device_id, _update_row(update), seen_by)

    def count_unsupported(self, now: datetime) -> int:
        self._session.flush()
        return int(self._session.rows(_UNSUPPORTED, {"now": stored(now)})[0][0])

    def retained_below(self, prefix: str) -> list[str]:
        self._session.flush()
        # A database may order letters by a language, in which punctuation counts little: the range
        # only bounds the search.
        wanted = {"from_topic": prefix, "to_topic": f"{prefix}{_LAST}"}
        rows = self._session.rows(_BELOW, wanted)
        return sorted(topic for (topic,) in rows if topic.startswith(prefix))


def _assignment_row(assignment: GivenAssignment) -> dict[str, object]:
    return {
        "device_id": assignment.device_id,
        "sequence": assignment.sequence,
        "rollout": assignment.rollout,
        "nonce": assignment.nonce,
        "issued_at": stored(assignment.issued_at),
        "expires": stored(assignment.expires),
        "targets": json.dumps(assignment.targets),
        "calls_back": assignment.calls_back,
        "settled_at": stored_or_none(assignment.settled_at),
    }


def _assignment(row: Row) -> GivenAssignment:
    device_id, sequence, rollout, nonce, issued_at, expires, targets, calls_back, settled_at = row
    return GivenAssignment(
        device_id=DeviceId(device_id),
        sequence=sequence,
        rollout=rollout,
        nonce=nonce,
        issued_at=loaded(issued_at),
        expires=loaded(expires),
        targets=tuple((path, sha256) for path, sha256 in json.loads(targets)),
        calls_back=calls_back,
        settled_at=loaded_or_none(settled_at),
    )


def _report_row(report: KnownReport) -> dict[str, object]:
    return {
        "device_id": report.device_id,
        "report_id": report.report_id,
        "sha256": report.sha256,
        "rollout": report.rollout,
        "sequence": report.sequence,
        "phase": report.phase.value,
        "at": stored(report.at),
        "received_at": stored(report.received_at),
        "code": report.code,
        "detail": report.detail,
    }


def _report(row: Row) -> KnownReport:
    device_id, report_id, sha256, rollout, sequence, phase, at, received_at, code, detail = row
    return KnownReport(
        device_id=DeviceId(device_id),
        report_id=report_id,
        sha256=sha256,
        rollout=rollout,
        sequence=sequence,
        phase=Phase(phase),
        at=loaded(at),
        received_at=loaded(received_at),
        code=code,
        detail=detail,
    )


def _update_row(update: DeviceUpdate) -> dict[str, object]:
    return {
        "device_id": update.device_id,
        "sequence": update.sequence,
        "rollout": update.rollout,
        "rollout_number": update.rollout_number,
        "running": json.dumps(update.running),
        "security_counter": update.security_counter,
        "support_until": stored_or_none(update.support_until),
        "reported_at": stored_or_none(update.reported_at),
        "phase": None if update.phase is None else update.phase.value,
        "code": update.code,
        "rolled_back": " ".join(update.rolled_back),
    }


def update_from(row: Row) -> DeviceUpdate:
    """From a row of all columns."""
    (
        device_id,
        sequence,
        rollout,
        rollout_number,
        running,
        security_counter,
        support_until,
        reported_at,
        phase,
        code,
        rolled_back,
    ) = row
    return DeviceUpdate(
        device_id=DeviceId(device_id),
        sequence=sequence,
        rollout=rollout,
        rollout_number=rollout_number,
        running=json.loads(running),
        security_counter=security_counter,
        support_until=loaded_or_none(support_until),
        reported_at=loaded_or_none(reported_at),
        phase=None if phase is None else Phase(phase),
        code=code,
        rolled_back=tuple(rolled_back.split()),
    )
