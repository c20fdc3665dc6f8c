"""Each device's part in a rollout, and how many of them stand where."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry import session
from broker.adapters.registry.moments import loaded, stored
from broker.adapters.registry.schema import DEVICE
from broker.adapters.registry.schema_updates import ROLLOUT_PART, ROLLOUT_TALLY
from broker.adapters.registry.session import Row, Session, Upsert
from broker.core.lifecycle import DeviceState
from broker.core.rollout import FINISHED, IN_FLIGHT, Progress, Tally
from broker.core.update_records import Part
from broker.protocol.names import DeviceId

_T: Final = ROLLOUT_PART
_N: Final = ROLLOUT_TALLY
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_OF_ROLLOUT: Final = sa.select(_T).where(_T.c.rollout == sa.bindparam("wanted"))
_ONE: Final = _OF_ROLLOUT.where(_T.c.device_id == sa.bindparam("device"))
_SILENT: Final = sa.select(sa.func.count()).where(
    _T.c.rollout == sa.bindparam("wanted"),
    _T.c.progress == sa.bindparam("at"),
    _T.c.changed_at < sa.bindparam("since", type_=sa.BigInteger),
)
_GONE: Final = (
    _OF_ROLLOUT.join(DEVICE, DEVICE.c.id == _T.c.device_id)
    .where(
        _T.c.progress.in_(sorted(each.value for each in IN_FLIGHT)),
        DEVICE.c.state.in_([DeviceState.REVOKED.value, DeviceState.RETIRED.value]),
    )
    .limit(_AT_MOST)
)
_TALLY: Final = (
    sa.select(_N.c.wave, _N.c.progress, sa.func.sum(_N.c.devices))
    .where(_N.c.rollout == sa.bindparam("wanted"), _N.c.devices > 0)
    .group_by(_N.c.wave, _N.c.progress)
)
_CODES: Final = (
    sa.select(_N.c.code, sa.func.sum(_N.c.devices))
    .where(
        _N.c.rollout == sa.bindparam("wanted"),
        _N.c.devices > 0,
        _N.c.code != "",
    )
    .group_by(_N.c.code)
)
_DEVICES: Final = sa.select(_N.c.devices).where(
    _N.c.rollout == sa.bindparam("wanted"),
    _N.c.wave == sa.bindparam("in_wave", type_=sa.BigInteger),
    _N.c.progress == sa.bindparam("at"),
    _N.c.code == sa.bindparam("its_code"),
)

SAVE: Final = Upsert(_T, key=("rollout", "device_id"))
SAVE_TALLY: Final = Upsert(_N, key=("rollout", "wave", "progress", "code"))

_Key = tuple[str, int, Progress, str]


class RolloutParts(session.Part):
    """The port's methods about parts, on one transaction.

    What was read once is remembered: while a transaction is open nobody else can change it.
    """

    def __init__(self, its_session: Session) -> None:
        super().__init__(its_session)
        self._parts: dict[tuple[str, DeviceId], Part | None] = {}
        self._counts: dict[_Key, int] = {}

    def part(self, rollout: str, device_id: DeviceId) -> Part | None:
        key = (rollout, device_id)
        if key not in self._parts:
            found = self._session.rows(_ONE, {"wanted": rollout, "device": device_id})
            self._parts[key] = part_from(found[0]) if found else None
        return self._parts[key]

    def parts_of(self, rollout: str, device_ids: Sequence[DeviceId]) -> list[Part]:
        unknown = [each for each in device_ids if (rollout, each) not in self._parts]
        if unknown:
            query = sa.select(_T).where(_T.c.rollout == rollout, _T.c.device_id.in_(unknown))
            found = {row[1]: part_from(row) for row in self._session.select(query)}
            self._parts.update({(rollout, each): found.get(each) for each in unknown})
        parts = (self._parts[rollout, each] for each in device_ids)
        return [each for each in parts if each is not None]

    def parts(
        self, rollout: str, among: Sequence[Progress], after: DeviceId | None, limit: int
    ) -> list[Part]:
        query = sa.select(_T).where(_T.c.rollout == rollout).order_by(_T.c.device_id).limit(limit)
        if after is not None:
            query = query.where(_T.c.device_id > after)
        if among:
            # One by one each is read in the order of its index; together, all would be sorted.
            each = (query.where(_T.c.progress == one.value).subquery() for one in among)
            together = sa.union_all(*(sa.select(one) for one in each)).subquery()
            query = sa.select(together).order_by(together.c.device_id).limit(limit)
        return [part_from(row) for row in self._session.select(query)]

    def count_silent(self, rollout: str, among: Sequence[Progress], since: datetime) -> int:
        self._session.flush()
        wanted = {"wanted": rollout, "since": stored(since)}
        counts = (self._session.rows(_SILENT, {**wanted, "at": each.value}) for each in among)
        return sum(int(rows[0][0]) for rows in counts)

    def gone_parts(self, rollout: str, limit: int) -> list[Part]:
        query = _GONE.params(wanted=rollout, at_most=limit)
        return [part_from(row) for row in self._session.select(query)]

    def tally(self, rollout: str) -> Tally:
        self._session.flush()
        rows = self._session.rows(_TALLY, {"wanted": rollout})
        return {(int(wave), Progress(at)): int(devices) for wave, at, devices in rows}

    def failure_codes(self, rollout: str) -> dict[str, int]:
        self._session.flush()
        return {code: int(n) for code, n in self._session.rows(_CODES, {"wanted": rollout})}

    def save_part(self, part: Part) -> None:
        before = self.part(part.rollout, part.device_id)
        if before is not None:
            self._count(before, -1)
        self._count(part, 1)
        self._parts[part.rollout, part.device_id] = part
        self._session.later(SAVE, (part.rollout, part.device_id), _row(part))

    def _count(self, part: Part, by: int) -> None:
        # What succeeds needs no reason; what it's told on the way isn't worth a line.
        code = "" if part.progress in _WITHOUT_CODE else part.code or ""
        key = (part.rollout, part.wave, part.progress, code)
        devices = self._counts[key] = self._counted(key) + by
        row = {
            "rollout": part.rollout,
            "wave": part.wave,
            "progress": part.progress.value,
            "code": code,
            "devices": devices,
        }
        self._session.later(SAVE_TALLY, key, row)

    def _counted(self, key: _Key) -> int:
        if key not in self._counts:
            rollout, wave, progress, code = key
            wanted = {"wanted": rollout, "in_wave": wave, "at": progress.value, "its_code": code}
            found = self._session.rows(_DEVICES, wanted)
            self._counts[key] = int(found[0][0]) if found else 0
        return self._counts[key]


_WITHOUT_CODE: Final = (
    IN_FLIGHT | {Progress.QUEUED, Progress.CANCELLING} | (FINISHED & {Progress.INSTALLED})
)


def _row(part: Part) -> dict[str, object]:
    return {
        "rollout": part.rollout,
        "device_id": part.device_id,
        "progress": part.progress.value,
        "changed_at": stored(part.changed_at),
        "wave": part.wave,
        "draw": part.draw,
        "sequence": part.sequence,
        "code": part.code,
        "detail": part.detail,
    }


def part_from(row: Row) -> Part:
    """From a row of all columns."""
    rollout, device_id, progress, changed_at, wave, draw, sequence, code, detail = row
    return Part(
        rollout=rollout,
        device_id=DeviceId(device_id),
        progress=Progress(progress),
        changed_at=loaded(changed_at),
        wave=wave,
        draw=draw,
        sequence=sequence,
        code=code,
        detail=detail,
    )
