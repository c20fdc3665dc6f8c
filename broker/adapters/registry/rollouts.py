"""Rollouts in the registry."""

from dataclasses import dataclass
from typing import Final

import msgspec
import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import EVENT
from broker.adapters.registry.schema_updates import IS_MOVING, ROLLOUT
from broker.adapters.registry.session import Part, Row, Upsert
from broker.core.records import EventKind
from broker.core.rollout import Image, Rollout, RolloutState, Selection, Timing
from broker.core.rollout_pace import Bucket, Pace, StopRule
from broker.protocol.names import DeviceId

_T: Final = ROLLOUT
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_ALL: Final = sa.select(_T)
_ONE: Final = _ALL.where(_T.c.name == sa.bindparam("wanted"))
_NEWEST: Final = _ALL.order_by(_T.c.number.desc()).limit(_AT_MOST)
_MOVING: Final = _ALL.where(IS_MOVING).order_by(_T.c.number)
_HIGHEST: Final = sa.select(sa.func.max(_T.c.number))
_LAST_EVENT: Final = sa.select(sa.func.max(EVENT.c.id))
_JOINED: Final = (
    sa.select(EVENT.c.id, EVENT.c.device_id)
    .where(
        EVENT.c.kind == EventKind.DEVICE_ACTIVE.value,
        EVENT.c.id > sa.bindparam("after", type_=sa.BigInteger),
    )
    .order_by(EVENT.c.id)
    .limit(_AT_MOST)
)

SAVE: Final = Upsert(_T, key=("name",))


@dataclass(frozen=True)
class _Plan:
    """What never changes after the start."""

    images: tuple[Image, ...]
    selection: Selection
    pace: Pace
    timing: Timing
    stop: StopRule
    keep_open: bool
    again: bool


class Rollouts(Part):
    """The port's methods about rollouts, on one transaction."""

    def rollout(self, name: str) -> Rollout | None:
        self._session.flush_for(("rollout", name))
        found = self._session.rows(_ONE, {"wanted": name})
        return _rollout(found[0]) if found else None

    def rollouts(self, limit: int) -> list[Rollout]:
        self._session.flush()
        return [_rollout(row) for row in self._session.rows(_NEWEST, {"at_most": limit})]

    def moving_rollouts(self) -> list[Rollout]:
        self._session.flush()
        return [_rollout(row) for row in self._session.rows(_MOVING, {})]

    def newest_rollout_number(self) -> int:
        self._session.flush()
        return int(self._session.rows(_HIGHEST, {})[0][0] or 0)

    def save_rollout(self, rollout: Rollout) -> None:
        self._session.later(SAVE, rollout.name, _row(rollout), [("rollout", rollout.name)])

    def joined_after(self, event_id: int, limit: int) -> list[tuple[int, DeviceId]]:
        self._session.flush()
        rows = self._session.rows(_JOINED, {"after": event_id, "at_most": limit})
        return [(int(number), DeviceId(device_id)) for number, device_id in rows]

    def last_event_id(self) -> int:
        self._session.flush()
        return int(self._session.rows(_LAST_EVENT, {})[0][0] or 0)


def _row(rollout: Rollout) -> dict[str, object]:
    plan = _Plan(
        rollout.images,
        rollout.selection,
        rollout.pace,
        rollout.timing,
        rollout.stop,
        rollout.keep_open,
        rollout.again,
    )
    bucket = rollout.bucket
    return {
        "name": rollout.name,
        "number": rollout.number,
        "state": rollout.state.value,
        "moving": int(rollout.moving),
        "plan": msgspec.json.encode(plan).decode(),
        "started_at": stored(rollout.started_at),
        "state_at": stored_or_none(rollout.state_at),
        "reason": rollout.reason,
        "wave": rollout.wave,
        "tokens": None if bucket is None else repr(bucket.tokens),
        "tokens_at": None if bucket is None else stored(bucket.at),
        "enlisted": int(rollout.enlisted),
        "enlisted_to": rollout.enlisted_to,
        "joined_to": rollout.joined_to,
    }


def _rollout(row: Row) -> Rollout:
    (
        name,
        number,
        state,
        moving,
        plan,
        started_at,
        state_at,
        reason,
        wave,
        tokens,
        tokens_at,
        enlisted,
        enlisted_to,
        joined_to,
    ) = row
    fixed = msgspec.json.decode(plan, type=_Plan)
    return Rollout(
        name=name,
        number=number,
        images=fixed.images,
        selection=fixed.selection,
        pace=fixed.pace,
        timing=fixed.timing,
        stop=fixed.stop,
        started_at=loaded(started_at),
        state=RolloutState(state),
        state_at=loaded_or_none(state_at),
        reason=reason,
        moving=bool(moving),
        keep_open=fixed.keep_open,
        again=fixed.again,
        wave=wave,
        bucket=None if tokens is None else Bucket(float(tokens), loaded(tokens_at)),
        enlisted=bool(enlisted),
        enlisted_to=enlisted_to,
        joined_to=joined_to,
    )
