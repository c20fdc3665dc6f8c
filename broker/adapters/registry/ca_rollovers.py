"""How far the replacement of the operational authority has got, and whom it concerns."""

from datetime import datetime
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.certificates import ALL, certificates_in
from broker.adapters.registry.moments import loaded, stored
from broker.adapters.registry.schema import (
    CA_ROLLOVER,
    CERTIFICATE,
    IS_UNREVOKED,
    TRUST_BUNDLE,
)
from broker.adapters.registry.session import Part, Upsert
from broker.core.ca_rollover import Phase, Rollover
from broker.core.records import Certificate
from broker.protocol.names import DeviceId

_T: Final = CA_ROLLOVER
_OPERATIONAL: Final = "operational"
_ONE: Final = sa.select(*(c for c in _T.columns if c.name != "authority")).where(
    _T.c.authority == _OPERATIONAL
)

_C: Final = CERTIFICATE
_N: Final = CERTIFICATE.alias("proven")
_OLD: Final = sa.bindparam("old", type_=sa.BigInteger)
_NEW: Final = sa.bindparam("new", type_=sa.BigInteger)
_MOMENT: Final = sa.bindparam("moment", type_=sa.BigInteger)
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)

# What was superseded lets its device in for a time of grace only.
_IS_PROVEN: Final = sa.and_(
    _N.c.generation == _NEW,
    sa.text("proven.state <> 'revoked' AND proven.state = 'active'"),  # the first is the index's
    _N.c.confirmed_at.is_not(None),
    _N.c.not_after > _MOMENT,
)
_IS_LEFT: Final = sa.and_(
    _C.c.generation == _OLD,
    sa.text("certificate.state <> 'revoked'"),
    _C.c.not_after > _MOMENT,
    ~sa.exists().where(_N.c.device_id == _C.c.device_id, _IS_PROVEN).correlate(_C),
)
_COUNT_LEFT: Final = sa.select(sa.func.count(_C.c.device_id.distinct())).where(_IS_LEFT)
_COUNT_MOVED: Final = sa.select(sa.func.count(_N.c.device_id.distinct())).where(_IS_PROVEN)
_LEFT: Final = (
    sa.select(_C.c.device_id)
    .distinct()
    .where(_IS_LEFT, _C.c.device_id > sa.bindparam("after"))
    .order_by(_C.c.device_id)
    .limit(_AT_MOST)
)
_IS_FRESH: Final = sa.and_(
    _N.c.not_before >= sa.bindparam("since", type_=sa.BigInteger),
    sa.text("proven.state <> 'revoked' AND proven.state = 'active'"),  # the first is the index's
    _N.c.confirmed_at.is_not(None),
)
_IS_NOT_RENEWED: Final = sa.and_(
    sa.text("certificate.state <> 'revoked'"),
    _C.c.not_after > _MOMENT,
    ~sa.exists().where(_N.c.device_id == _C.c.device_id, _IS_FRESH).correlate(_C),
)
_COUNT_NOT_RENEWED: Final = sa.select(sa.func.count(_C.c.device_id.distinct())).where(
    _IS_NOT_RENEWED
)
_NOT_RENEWED: Final = (
    sa.select(_C.c.device_id)
    .distinct()
    .where(_IS_NOT_RENEWED)
    .order_by(_C.c.device_id)
    .limit(_AT_MOST)
)
_BY_GENERATION: Final = (
    ALL.where(_C.c.generation == _OLD, IS_UNREVOKED, _C.c.not_after > _MOMENT)
    .order_by(_C.c.id)
    .limit(_AT_MOST)
)

SAVE: Final = Upsert(_T, key=("authority",))
_PUBLICATIONS: Final = sa.select(TRUST_BUNDLE.c.version, TRUST_BUNDLE.c.published_at)
_SAVE_PUBLICATION: Final = Upsert(TRUST_BUNDLE, key=("version",), kept=frozenset({"published_at"}))


class CaRollovers(Part):
    """The port's methods about the authorities' replacement, on one transaction."""

    def ca_rollover(self) -> Rollover | None:
        self._session.flush_for("ca_rollover")
        found = self._session.rows(_ONE, {})
        if not found:
            return None
        old, new, phase, started_at, is_return, campaign, per_minute, wave_size = found[0]
        return Rollover(
            old=old,
            new=new,
            phase=Phase(phase),
            started_at=loaded(started_at),
            is_return=bool(is_return),
            campaign=campaign,
            per_minute=per_minute,
            wave_size=wave_size,
        )

    def count_moved(self, old: int, new: int, now: datetime) -> tuple[int, int]:
        self._session.flush()
        moment = stored(now)
        moved = self._session.rows(_COUNT_MOVED, {"new": new, "moment": moment})
        left = self._session.rows(_COUNT_LEFT, {"old": old, "new": new, "moment": moment})
        return int(moved[0][0]), int(left[0][0])

    def left_behind(
        self, old: int, new: int, now: datetime, after: str, limit: int
    ) -> list[DeviceId]:
        self._session.flush()
        wanted = {"old": old, "new": new, "moment": stored(now), "after": after, "at_most": limit}
        return [DeviceId(device_id) for (device_id,) in self._session.rows(_LEFT, wanted)]

    def not_renewed_since(self, moment: datetime, now: datetime, limit: int) -> list[DeviceId]:
        self._session.flush()
        wanted = {"since": stored(moment), "moment": stored(now), "at_most": limit}
        return [DeviceId(device_id) for (device_id,) in self._session.rows(_NOT_RENEWED, wanted)]

    def count_not_renewed_since(self, moment: datetime, now: datetime) -> int:
        self._session.flush()
        wanted = {"since": stored(moment), "moment": stored(now)}
        return int(self._session.rows(_COUNT_NOT_RENEWED, wanted)[0][0])

    def certificates_by(self, generation: int, now: datetime, limit: int) -> list[Certificate]:
        self._session.flush()
        wanted = {"old": generation, "moment": stored(now), "at_most": limit}
        return certificates_in(self._session.rows(_BY_GENERATION, wanted))

    def bundle_publications(self) -> dict[int, datetime]:
        self._session.flush()
        rows = self._session.rows(_PUBLICATIONS, {})
        return {int(version): loaded(at) for version, at in rows}

    def save_bundle_publication(self, version: int, at: datetime) -> None:
        row = {"version": version, "published_at": stored(at)}
        self._session.write(_SAVE_PUBLICATION, [row])

    def save_ca_rollover(self, rollover: Rollover) -> None:
        row = {
            "authority": _OPERATIONAL,
            "old": rollover.old,
            "new": rollover.new,
            "phase": rollover.phase.value,
            "started_at": stored(rollover.started_at),
            "is_return": int(rollover.is_return),
            "campaign": rollover.campaign,
            "per_minute": rollover.per_minute,
            "wave_size": rollover.wave_size,
        }
        self._session.later(SAVE, _OPERATIONAL, row, ["ca_rollover"])
