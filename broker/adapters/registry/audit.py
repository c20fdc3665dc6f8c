"""The audit log's seals in the registry, and the end of its oldest events."""

from typing import Any, Final

import sqlalchemy as sa

from broker.adapters.registry.events import Events, event_of
from broker.adapters.registry.schema import AUDIT_SEAL, EVENT
from broker.adapters.registry.session import Upsert
from broker.core.audit_chain import Floor, Seal, Signed
from broker.core.records import Event

_T: Final = AUDIT_SEAL
_FLOOR: Final = 0
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_NUMBER: Final = sa.bindparam("wanted", type_=sa.BigInteger)
_SIGNED: Final = sa.select(_T.c.statement, _T.c.signature)
_ONE: Final = _SIGNED.where(_T.c.number == _NUMBER)
_AFTER: Final = _SIGNED.where(_T.c.number > _NUMBER).order_by(_T.c.number).limit(_AT_MOST)
_NEWEST: Final = _SIGNED.where(_T.c.number > _FLOOR).order_by(_T.c.number.desc()).limit(1)
_EVENTS: Final = sa.select(EVENT).where(EVENT.c.id > _NUMBER).order_by(EVENT.c.id).limit(_AT_MOST)
_DROP: Final = sa.delete(EVENT).where(EVENT.c.id <= _NUMBER)
_DROP_SEALS: Final = sa.delete(_T).where(_T.c.number > _FLOOR, _T.c.number <= _NUMBER)

_PROGRAMS: Final = {
    "sqlite": sa.text(
        "SELECT name FROM sqlite_master WHERE type IN ('trigger', 'view') ORDER BY name"
    ),
    "postgresql": sa.text(
        """SELECT tgname::text FROM pg_trigger
        WHERE NOT tgisinternal AND tgrelid IN (to_regclass('event'), to_regclass('audit_seal'))
        UNION SELECT rulename::text FROM pg_rules WHERE tablename IN ('event', 'audit_seal')
        ORDER BY 1"""
    ),
}

SAVE: Final = Upsert(_T, key=("number",))


class Audit(Events):
    """The port's methods about the audit log, on one transaction."""

    def events_after(self, event_id: int, limit: int) -> list[Event]:
        self._session.flush()
        wanted = {"wanted": event_id, "at_most": limit}
        return [event_of(row) for row in self._session.rows(_EVENTS, wanted)]

    def audit_programs(self) -> list[str]:
        found = self._session.rows(_PROGRAMS[self._session.connection.dialect.name], {})
        return [str(name) for (name,) in found]

    def audit_floor(self) -> Signed | None:
        self._session.flush()
        found = self._session.rows(_ONE, {"wanted": _FLOOR})
        return Signed(*found[0]) if found else None

    def audit_seals(self, after: int, limit: int) -> list[Signed]:
        self._session.flush()
        rows = self._session.rows(_AFTER, {"wanted": after, "at_most": limit})
        return [Signed(*row) for row in rows]

    def newest_audit_seal(self) -> Signed | None:
        self._session.flush()
        found = self._session.rows(_NEWEST, {})
        return Signed(*found[0]) if found else None

    def save_audit_seal(self, seal: Seal, signed: Signed) -> None:
        self._session.write(SAVE, [_row(seal.number, seal.last_id, signed)])

    def drop_events(self, floor: Floor, signed: Signed) -> int:
        self._session.write(SAVE, [_row(_FLOOR, floor.last_id, signed)])
        self._session.write(_DROP_SEALS, [{"wanted": floor.number}])
        return self._session.write(_DROP, [{"wanted": floor.last_id}])


def _row(number: int, last_id: int, signed: Signed) -> dict[str, Any]:
    return {
        "number": number,
        "last_id": last_id,
        "statement": signed.statement,
        "signature": signed.signature,
    }
