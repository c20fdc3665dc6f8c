"""Answers that were committed and wait to be published."""

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, stored
from broker.adapters.registry.schema import REPLY
from broker.adapters.registry.session import Part, Session
from broker.core.records import Reply
from broker.protocol.zones import Zone

_T: Final = REPLY
_PENDING: Final = (
    sa.select(_T.c.id, _T.c.zone, _T.c.topic, _T.c.payload, _T.c.created_at)
    .order_by(_T.c.position)
    .limit(sa.bindparam("at_most", type_=sa.BigInteger))
)
_PENDING_IN_ZONE: Final = _PENDING.where(_T.c.zone == sa.bindparam("zone"))
ADD: Final = (
    sa.insert(_T)
    .values({c.name: sa.bindparam(c.name) for c in _T.columns if c.name != "position"})
    .inline()
)
REMOVE: Final = sa.delete(_T).where(_T.c.id == sa.bindparam("wanted"))


class Outbox(Part):
    """The port's methods about replies, on one transaction."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._replies_added = 0

    def pending_replies(self, limit: int, zone: Zone | None = None) -> list[Reply]:
        self._session.flush()
        wanted = {"at_most": limit} if zone is None else {"at_most": limit, "zone": zone.value}
        statement = _PENDING if zone is None else _PENDING_IN_ZONE
        return [
            Reply(reply_id, Zone(its_zone), topic, bytes(payload), loaded(created_at))
            for reply_id, its_zone, topic, payload, created_at in self._session.rows(
                statement, wanted
            )
        ]

    def add_reply(self, reply: Reply) -> None:
        # Removals are sent after additions: one of the same id that waits has to go first.
        self._session.flush_for(("removed", reply.id))
        row = {
            "id": reply.id,
            "zone": reply.zone.value,
            "topic": reply.topic,
            "payload": reply.payload,
            "created_at": stored(reply.created_at),
        }
        self._replies_added += 1
        self._session.later(ADD, self._replies_added, row)

    def remove_replies(self, ids: Sequence[str]) -> None:
        for reply_id in ids:
            self._session.later(REMOVE, reply_id, {"wanted": reply_id}, [("removed", reply_id)])
