"""Devices in the registry."""

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa

from broker.adapters.registry.errors import conflict
from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import CERTIFICATE, DEVICE, ENROLLMENT
from broker.adapters.registry.session import Part, Session, Upsert
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Device, RevocationReason
from broker.ports.registry import DeviceFilter
from broker.protocol.names import ClaimName, DeviceId, GroupName, SerialNumber

_T: Final = DEVICE
_ALL: Final = sa.select(_T)
_BY_ID: Final = _ALL.where(_T.c.id == sa.bindparam("wanted"))
_ON_LIST: Final = sa.exists().where(
    ENROLLMENT.c.group_name == sa.bindparam("wanted_group"),
    ENROLLMENT.c.serial == sa.bindparam("wanted_serial"),
)
# One row always: the serial number may be on the list, or a device's, or both, or neither.
_STANDING: Final = sa.select(_ON_LIST, _T).select_from(
    sa.select(sa.literal_column("1").label("one"))
    .subquery("one_row")
    .outerjoin(
        _T,
        sa.and_(
            _T.c.group_name == sa.bindparam("wanted_group"),
            _T.c.serial == sa.bindparam("wanted_serial"),
        ),
    )
)
_COUNT: Final = sa.select(_T.c.state, sa.func.count()).group_by(_T.c.state)
_PROVEN: Final = CERTIFICATE.alias("proven")
_OTHER: Final = CERTIFICATE.alias("other")
_MOMENT: Final = sa.bindparam("moment", type_=sa.BigInteger)
_LIVE: Final = sa.exists().where(
    _OTHER.c.device_id == _PROVEN.c.device_id,
    _OTHER.c.state != CertificateState.REVOKED.value,
    _OTHER.c.held_at.is_(None),
    _OTHER.c.not_after > _MOMENT,
    sa.or_(_OTHER.c.grace_until.is_(None), _OTHER.c.grace_until > _MOMENT),
)
_EXPIRED: Final = (
    sa.select(sa.func.count())
    .select_from(_PROVEN.join(_T, _T.c.id == _PROVEN.c.device_id))
    .where(
        sa.or_(_T.c.state == DeviceState.ACTIVE.value, _T.c.state == DeviceState.ROTATING.value),
        _PROVEN.c.state == CertificateState.ACTIVE.value,
        _PROVEN.c.not_after <= _MOMENT,
        ~_LIVE,
    )
)

SAVE: Final = Upsert(_T, key=("id",))

Slot = tuple[GroupName, SerialNumber]
"""The place that only one device can have."""


class Devices(Part):
    """The port's methods about devices, on one transaction."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._owners: dict[Slot, DeviceId | None] = {}
        self._slots: dict[DeviceId, Slot | None] = {}

    def device(self, device_id: DeviceId) -> Device | None:
        self._session.flush_for(("device", device_id))
        found = self._session.rows(_BY_ID, {"wanted": device_id})
        device = device_from(found[0]) if found else None
        self._slots[device_id] = (device.group, device.serial) if device else None
        return device

    def standing(self, group: GroupName, serial: SerialNumber) -> tuple[bool, Device | None]:
        """Whether the serial number is on the group's allow-list, and the device that has it."""
        slot = (group, serial)
        self._session.flush_for(slot)
        names = {"wanted_group": group, "wanted_serial": serial}
        ((enrolled, *row),) = self._session.rows(_STANDING, names)
        device = device_from(row) if row[0] is not None else None
        self._owners[slot] = device.id if device else None
        if device:
            self._slots[device.id] = slot
        return bool(enrolled), device

    def devices(self, wanted: DeviceFilter) -> list[Device]:
        query = _ALL.where(*_wanted(wanted)).order_by(_T.c.id).limit(wanted.limit)
        return [device_from(row) for row in self._session.select(query)]

    def count_devices(self, wanted: DeviceFilter | None = None) -> dict[DeviceState, int]:
        counts = dict.fromkeys(DeviceState, 0)
        query = _COUNT if wanted is None else _COUNT.where(*_wanted(wanted))
        for state, count in self._session.select(query):
            counts[DeviceState(state)] = count
        return counts

    def count_expired(self, now: datetime) -> int:
        self._session.flush()
        return int(self._session.rows(_EXPIRED, {"moment": stored(now)})[0][0])

    def save_device(self, device: Device) -> None:
        slot = (device.group, device.serial)
        if self._owner(slot) not in (None, device.id):
            raise conflict(
                f"The serial number {device.serial} belongs to the device {self._owner(slot)}"
                f" of the group {device.group} already."
            )
        moves = self._slot(device.id) not in (None, slot)
        self._session.later(SAVE, device.id, _row(device), (("device", device.id), slot))
        if moves:
            # The place it leaves isn't named by what waits; whoever asks for it has to see that.
            self._session.flush()
            self._owners.clear()
        self._owners[slot] = device.id
        self._slots[device.id] = slot

    def _slot(self, device_id: DeviceId) -> Slot | None:
        if device_id not in self._slots:
            self.device(device_id)
        return self._slots[device_id]

    def _owner(self, slot: Slot) -> DeviceId | None:
        # A claim has asked for this place just before; no need to ask again.
        if slot not in self._owners:
            self.standing(*slot)
        return self._owners[slot]


def _wanted(wanted: DeviceFilter) -> "list[sa.ColumnElement[bool]]":
    narrowed: list[sa.ColumnElement[bool]] = []
    if wanted.state is not None:
        narrowed.append(_T.c.state == wanted.state.value)
    if wanted.group is not None:
        narrowed.append(_T.c.group_name == wanted.group)
    if wanted.claim_name is not None:
        narrowed.append(_claimed_through(wanted.claim_name))
    if wanted.after is not None:
        narrowed.append(_T.c.id > wanted.after)
    return narrowed


def _claimed_through(name: ClaimName) -> "sa.ColumnElement[bool]":
    # No index of its own: it would slow every claim down for a question that is asked after a leak.
    # Asked of each device by the index that there is, all pages together cost one pass.
    certificate = CERTIFICATE.c
    lapsed = RevocationReason.NEVER_CONFIRMED.value
    return sa.exists().where(
        certificate.device_id == _T.c.id,
        certificate.claim_name == name,
        sa.or_(certificate.revoked_for.is_(None), certificate.revoked_for != lapsed),
    )


def _row(device: Device) -> dict[str, object]:
    return {
        "id": device.id,
        "group_name": device.group,
        "serial": device.serial,
        "state": device.state.value,
        "registered_at": stored(device.registered_at),
        "activated_at": stored_or_none(device.activated_at),
        "parameters": json.dumps(device.parameters) if device.parameters else "{}",
    }


def device_from(row: Sequence[Any]) -> Device:
    """From a row of all columns."""
    device_id, group, serial, state, registered_at, activated_at, parameters = row
    return Device(
        id=DeviceId(device_id),
        group=GroupName(group),
        serial=SerialNumber(serial),
        state=DeviceState(state),
        registered_at=loaded(registered_at),
        parameters=json.loads(parameters),
        activated_at=loaded_or_none(activated_at),
    )
