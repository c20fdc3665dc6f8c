"""Enrollment groups and their allow-lists in the registry."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import groupby, islice
from operator import itemgetter
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.errors import conflict
from broker.adapters.registry.moments import loaded, stored
from broker.adapters.registry.schema import DEVICE, ENROLLMENT, ENROLLMENT_GROUP, GROUP_CLAIM
from broker.adapters.registry.session import Part, Row, Session, Upsert
from broker.core.keys import KeyType
from broker.core.records import (
    Enrollment,
    EnrollmentGroup,
    Reprovision,
    RotationKey,
    Serials,
)
from broker.ports.registry import EnrollmentFilter
from broker.protocol.names import ClaimName, GroupName, SerialNumber

_T: Final = ENROLLMENT_GROUP
_CLAIM: Final = GROUP_CLAIM
_MICROSECOND: Final = timedelta(microseconds=1)
_IMPORT_CHUNK: Final = 1000
"""Lines of an allow-list that are sent together; bounds memory, whatever the list's length."""

# One row per claim certificate of the group, or one without.
_ALL: Final = (
    sa.select(_T, _CLAIM.c.claim_name).outerjoin(_CLAIM).order_by(_T.c.name, _CLAIM.c.claim_name)
)
_ONE: Final = _ALL.where(_T.c.name == sa.bindparam("wanted"))
_LISTING: Final = _ALL.where(
    _T.c.name
    == sa.select(GROUP_CLAIM.c.group_name)
    .where(GROUP_CLAIM.c.claim_name == sa.bindparam("wanted"))
    .correlate(None)
    .scalar_subquery()
)
_SAVE: Final = Upsert(_T, key=("name",), kept=frozenset({"devices"}))
_ADD_CLAIM: Final = sa.insert(_CLAIM).values(
    claim_name=sa.bindparam("claim_name"), group_name=sa.bindparam("group_name")
)
_REMOVE_CLAIMS: Final = sa.delete(_CLAIM).where(_CLAIM.c.group_name == sa.bindparam("wanted"))
_ADD_ENROLLMENT: Final = Upsert(
    ENROLLMENT, key=("group_name", "serial"), kept=frozenset({"imported_at"})
)
_REMOVE_ENROLLMENT: Final = sa.delete(ENROLLMENT).where(
    ENROLLMENT.c.group_name == sa.bindparam("wanted_group"),
    ENROLLMENT.c.serial == sa.bindparam("wanted_serial"),
)
_COUNT_ENROLLMENTS: Final = sa.select(sa.func.count()).where(
    ENROLLMENT.c.group_name == sa.bindparam("wanted")
)

SAVE_COUNT: Final = (
    sa.update(_T)
    .where(_T.c.name == sa.bindparam("wanted"))
    .values(devices=sa.bindparam("devices_now"))
)


class Groups(Part):
    """The port's methods about groups and allow-lists, on one transaction.

    What was read once is remembered: while a transaction is open nobody else can change it.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._groups_read: dict[GroupName, EnrollmentGroup | None] = {}
        self._groups_of_claims: dict[ClaimName, GroupName | None] = {}

    def group(self, name: GroupName) -> EnrollmentGroup | None:
        try:
            return self._groups_read[name]
        except KeyError:
            found = _groups(self._session.rows(_ONE, {"wanted": name}))
        group = self._groups_read[name] = found[0] if found else None
        return group

    def group_of_claim(self, name: ClaimName) -> GroupName | None:
        group = self.group_listing(name)
        return group.name if group else None

    def group_listing(self, claim: ClaimName) -> EnrollmentGroup | None:
        """The group that lists the claim certificate."""
        if claim in self._groups_of_claims:
            name = self._groups_of_claims[claim]
            return self.group(name) if name else None
        found = _groups(self._session.rows(_LISTING, {"wanted": claim}))
        group = found[0] if found else None
        self._groups_of_claims[claim] = group.name if group else None
        if group is None:
            return None
        # What is remembered already may have been counted on since.
        return self._groups_read.setdefault(group.name, group)

    def groups(self) -> list[EnrollmentGroup]:
        self._session.flush()
        return _groups(self._session.rows(_ALL, {}))

    def save_group(self, group: EnrollmentGroup) -> None:
        for claim in sorted(group.claim_certificates):
            if self.group_of_claim(claim) not in (None, group.name):
                raise conflict(
                    f"The claim certificate {claim} belongs to the group"
                    f" {self.group_of_claim(claim)} already."
                )
        self._session.write(_SAVE, [_row(group)])
        self._session.write(_REMOVE_CLAIMS, [{"wanted": group.name}])
        self._session.write(
            _ADD_CLAIM,
            [{"claim_name": c, "group_name": group.name} for c in sorted(group.claim_certificates)],
        )
        self._groups_read.clear()
        self._groups_of_claims.clear()

    def count_device(self, name: GroupName, by: int) -> None:
        group = self.group(name)
        if group is None:
            return
        counted = self._groups_read[name] = replace(group, devices=max(group.devices + by, 0))
        # One row for the whole transaction, however many claims it holds.
        self._session.later(SAVE_COUNT, name, {"wanted": name, "devices_now": counted.devices})

    def add_enrollments(self, enrollments: Iterable[Enrollment]) -> int:
        lines = iter(enrollments)
        added = 0
        while chunk := list(islice(lines, _IMPORT_CHUNK)):
            added += self._session.write(
                _ADD_ENROLLMENT,
                [
                    {
                        "group_name": line.group,
                        "serial": line.serial,
                        "imported_at": stored(line.imported_at),
                    }
                    for line in chunk
                ],
            )
        return added

    def remove_enrollments(self, group: GroupName, serials: Sequence[SerialNumber]) -> None:
        rows = [{"wanted_group": group, "wanted_serial": serial} for serial in serials]
        self._session.write(_REMOVE_ENROLLMENT, rows)

    def enrolled(self, group: GroupName, serials: Sequence[SerialNumber]) -> set[SerialNumber]:
        return self._among(ENROLLMENT, group, serials)

    def claimed(self, group: GroupName, serials: Sequence[SerialNumber]) -> set[SerialNumber]:
        return self._among(DEVICE, group, serials)

    def _among(
        self, table: sa.Table, group: GroupName, serials: Sequence[SerialNumber]
    ) -> set[SerialNumber]:
        found: set[SerialNumber] = set()
        waiting = iter(serials)
        while chunk := list(islice(waiting, _IMPORT_CHUNK)):
            column = table.c.serial
            query = sa.select(column).where(table.c.group_name == group, column.in_(chunk))
            found.update(SerialNumber(serial) for (serial,) in self._session.select(query))
        return found

    def enrollments(self, wanted: EnrollmentFilter) -> list[Enrollment]:
        line = ENROLLMENT.c
        query = sa.select(line.serial, line.imported_at).where(line.group_name == wanted.group)
        if wanted.serial is not None:
            query = query.where(line.serial == wanted.serial)
        if wanted.after is not None:
            query = query.where(line.serial > wanted.after)
        found = self._session.select(query.order_by(line.serial).limit(wanted.limit))
        return [Enrollment(wanted.group, SerialNumber(serial), loaded(at)) for serial, at in found]

    def count_enrollments(self, group: GroupName) -> int:
        return int(self._session.rows(_COUNT_ENROLLMENTS, {"wanted": group})[0][0])


def _row(group: EnrollmentGroup) -> dict[str, object]:
    return {
        "name": group.name,
        "device_name": group.device_name,
        "allowed_keys": " ".join(sorted(group.allowed_keys)),
        "certificate_lifetime": group.certificate_lifetime // _MICROSECOND,
        "quota": group.quota,
        "serials": group.serials.value,
        "reprovision": group.reprovision.value,
        "devices": group.devices,
        "rotation_key": group.rotation_key.value,
        "rotation_grace": group.rotation_grace // _MICROSECOND,
        "recover_within": group.recover_within // _MICROSECOND,
    }


def _groups(rows: Iterable[Row]) -> list[EnrollmentGroup]:
    return [_group([*same]) for _, same in groupby(rows, key=itemgetter(0))]


def _group(rows: list[Row]) -> EnrollmentGroup:
    (
        name,
        device_name,
        keys,
        lifetime,
        quota,
        serials,
        reprovision,
        devices,
        rotation_key,
        rotation_grace,
        recover_within,
        _,
    ) = rows[0]
    return EnrollmentGroup(
        name=GroupName(name),
        claim_certificates=frozenset(ClaimName(row[-1]) for row in rows if row[-1] is not None),
        device_name=device_name,
        allowed_keys=frozenset(KeyType(key) for key in keys.split()),
        certificate_lifetime=timedelta(microseconds=lifetime),
        quota=quota,
        serials=Serials(serials),
        reprovision=Reprovision(reprovision),
        devices=devices,
        rotation_key=RotationKey(rotation_key),
        rotation_grace=timedelta(microseconds=rotation_grace),
        recover_within=timedelta(microseconds=recover_within),
    )
