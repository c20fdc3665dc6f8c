"""What the topics of the fleet zone are to retain."""

from collections.abc import Mapping
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.counters import Counters
from broker.adapters.registry.schema import COUNTER as COUNTER_TABLE
from broker.adapters.registry.schema import IS_EMPTY, RETAINED
from broker.adapters.registry.session import Row, Upsert
from broker.core.records import Retained

COUNTER: Final = "retained"
FLOOR: Final = "retained.floor"

_T: Final = RETAINED
_ALL: Final = sa.select(_T.c.topic, _T.c.payload, _T.c.stamp)
_ONE: Final = _ALL.where(_T.c.topic == sa.bindparam("wanted"))
_AFTER: Final = (
    _ALL.where(
        sa.or_(
            _T.c.stamp > sa.bindparam("stamp", type_=sa.BigInteger),
            sa.and_(
                _T.c.stamp == sa.bindparam("stamp", type_=sa.BigInteger),
                _T.c.topic > sa.bindparam("topic"),
            ),
        )
    )
    .order_by(_T.c.stamp, _T.c.topic)
    .limit(sa.bindparam("at_most", type_=sa.BigInteger))
)

_TOMBSTONES: Final = (
    sa.select(_T.c.topic, _T.c.stamp)
    .where(
        IS_EMPTY,
        _T.c.stamp <= sa.bindparam("stamp", type_=sa.BigInteger),
        _T.c.topic.like(sa.bindparam("below")),
    )
    .order_by(_T.c.stamp)
    .limit(sa.bindparam("at_most", type_=sa.BigInteger))
)
_DROP: Final = sa.delete(_T).where(_T.c.topic == sa.bindparam("topic"))
_RAISE_FLOOR: Final = Upsert(COUNTER_TABLE, key=("name",))

SAVE: Final = Upsert(_T, key=("topic",))


class RetainedMessages(Counters):
    """The port's methods about retained messages, on one transaction."""

    def retained(self, topic: str) -> Retained | None:
        self._session.flush_for(("retained", topic))
        found = self._session.rows(_ONE, {"wanted": topic})
        return _retained(found[0]) if found else None

    def retained_after(self, stamp: int, topic: str, limit: int) -> list[Retained]:
        self._session.flush()
        wanted = {"stamp": stamp, "topic": topic, "at_most": limit}
        return [_retained(row) for row in self._session.rows(_AFTER, wanted)]

    def retain(self, messages: Mapping[str, bytes]) -> None:
        changed = {
            topic: payload
            for topic, payload in messages.items()
            if (known := self.retained(topic)) is None or known.payload != payload
        }
        if not changed:
            return
        stamp = self.raise_counter(COUNTER)
        for topic, payload in changed.items():
            row = {"topic": topic, "payload": payload, "stamp": stamp}
            self._session.later(SAVE, topic, row, [("retained", topic)])

    def drop_tombstones(self, prefix: str, stamp: int, limit: int) -> int:
        self._session.flush()
        wanted = {"below": f"{prefix}%", "stamp": stamp, "at_most": limit}
        found = self._session.rows(_TOMBSTONES, wanted)
        if found:
            floor = {"name": FLOOR, "value": max(self.counter(FLOOR), found[-1][1])}
            self._session.write(_DROP, [{"topic": topic} for topic, _ in found])
            self._session.write(_RAISE_FLOOR, [floor])
        return len(found)


def _retained(row: Row) -> Retained:
    topic, payload, stamp = row
    return Retained(topic, bytes(payload), int(stamp))
