"""What the fleet's broker still owes to acts on devices, in the registry."""

from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import IS_OPEN, IS_WAITING, LOCK_OUT
from broker.adapters.registry.session import Part, Row, Upsert
from broker.core.lifecycle import DeviceInput
from broker.core.lock_out import CAN_WAIT
from broker.core.records import LockOut
from broker.protocol.names import CertificateSerial, DeviceId

_T: Final = LOCK_OUT
_ALL: Final = sa.select(*(column for column in _T.columns if column.name != "position"))
_ONE: Final = _ALL.where(_T.c.id == sa.bindparam("wanted"))
_OF_DEVICE: Final = _ALL.where(_T.c.device_id == sa.bindparam("wanted")).order_by(_T.c.position)
_AT_MOST: Final = sa.bindparam("at_most", type_=sa.BigInteger)
_CAN_WAIT: Final = sa.case(
    (_T.c.act.in_([sa.literal_column(f"'{act.value}'") for act in sorted(CAN_WAIT)]), 1), else_=0
)
_WAITING: Final = _ALL.where(IS_WAITING).order_by(_CAN_WAIT, _T.c.position).limit(_AT_MOST)
_OPEN: Final = _ALL.where(IS_OPEN).order_by(_T.c.position).limit(_AT_MOST)

SAVE: Final = Upsert(_T, key=("id",), generated=frozenset({"position"}))


class LockOuts(Part):
    """The port's methods about lock-outs, on one transaction."""

    def lock_out(self, lock_out_id: str) -> LockOut | None:
        self._session.flush_for(("lock_out", lock_out_id))
        found = self._session.rows(_ONE, {"wanted": lock_out_id})
        return _lock_out(found[0]) if found else None

    def lock_outs_of(self, device_id: DeviceId) -> list[LockOut]:
        self._session.flush_for(("lock_outs", device_id))
        return [_lock_out(row) for row in self._session.rows(_OF_DEVICE, {"wanted": device_id})]

    def waiting_lock_outs(self, limit: int) -> list[LockOut]:
        self._session.flush()
        return [_lock_out(row) for row in self._session.rows(_WAITING, {"at_most": limit})]

    def open_lock_outs(self, limit: int) -> list[LockOut]:
        self._session.flush()
        return [_lock_out(row) for row in self._session.rows(_OPEN, {"at_most": limit})]

    def save_lock_out(self, lock_out: LockOut) -> None:
        seen_by = (("lock_out", lock_out.id), ("lock_outs", lock_out.device_id))
        self._session.later(SAVE, lock_out.id, _row(lock_out), seen_by)


def _row(lock_out: LockOut) -> dict[str, object]:
    return {
        "id": lock_out.id,
        "device_id": lock_out.device_id,
        "act": lock_out.act.value,
        "serials": " ".join(lock_out.serials),
        "requested_at": stored(lock_out.requested_at),
        "crl_wanted": lock_out.crl_wanted,
        "reason": lock_out.reason,
        "crl_at": stored_or_none(lock_out.crl_at),
        "disconnected_at": stored_or_none(lock_out.disconnected_at),
        "ended_at": stored_or_none(lock_out.ended_at),
    }


def _lock_out(row: Row) -> LockOut:
    (
        lock_out_id,
        device_id,
        act,
        serials,
        requested_at,
        crl_wanted,
        reason,
        crl_at,
        disconnected_at,
        ended_at,
    ) = row
    return LockOut(
        id=lock_out_id,
        device_id=DeviceId(device_id),
        act=DeviceInput(act),
        serials=tuple(CertificateSerial(serial) for serial in serials.split()),
        requested_at=loaded(requested_at),
        crl_wanted=crl_wanted,
        reason=reason,
        crl_at=loaded_or_none(crl_at),
        disconnected_at=loaded_or_none(disconnected_at),
        ended_at=loaded_or_none(ended_at),
    )
