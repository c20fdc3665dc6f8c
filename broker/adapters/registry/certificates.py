"""Operational certificates in the registry."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import (
    CERTIFICATE,
    IS_HELD,
    IS_ISSUED,
    IS_REVOKED,
    IS_SUPERSEDED,
)
from broker.adapters.registry.session import Part, Row, Upsert
from broker.core.lifecycle import CertificateState
from broker.core.records import Certificate, RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.names import CertificateSerial, ClaimName, DeviceId, Fingerprint

_T: Final = CERTIFICATE
_REVOKED: Final = CertificateState.REVOKED.value
_IDS_CHUNK: Final = 500
"""Devices asked for in one query; the databases bound a query's parameters."""

ALL: Final = sa.select(*(column for column in _T.columns if column.name != "id"))
_OF_DEVICE: Final = ALL.where(_T.c.device_id == sa.bindparam("wanted")).order_by(_T.c.id)
_UNREVOKED: Final = _OF_DEVICE.where(_T.c.state != _REVOKED)
_BY_FINGERPRINT: Final = ALL.where(_T.c.certificate_sha256 == sa.bindparam("wanted"))
_BY_SERIAL: Final = ALL.where(_T.c.serial == sa.bindparam("wanted"))
_NEWEST_OF_KEY: Final = (
    ALL.where(_T.c.key_sha256 == sa.bindparam("wanted")).order_by(_T.c.id.desc()).limit(1)
)
_UNCONFIRMED: Final = (
    ALL.where(IS_ISSUED, _T.c.confirm_by <= sa.bindparam("moment"))
    .order_by(_T.c.confirm_by, _T.c.id)
    .limit(sa.bindparam("at_most", type_=sa.BigInteger))
)
_SUPERSEDED: Final = (
    ALL.where(IS_SUPERSEDED, _T.c.grace_until <= sa.bindparam("moment"))
    .order_by(_T.c.grace_until, _T.c.id)
    .limit(sa.bindparam("at_most", type_=sa.BigInteger))
)
_REASONS: Final = {reason.value: reason for reason in RevocationReason}
_REVOCATIONS: Final = (
    sa.select(_T.c.serial, _T.c.revoked_at, _T.c.revoked_for, _T.c.device_id, _T.c.generation)
    .where(IS_REVOKED, _T.c.not_after > sa.bindparam("moment"))
    .order_by(_T.c.id)
)
_HELD: Final = (
    sa.select(
        _T.c.serial,
        _T.c.held_at,
        sa.literal_column("'suspended'"),
        _T.c.device_id,
        _T.c.generation,
    )
    .where(IS_HELD, _T.c.state != _REVOKED, _T.c.not_after > sa.bindparam("moment"))
    .order_by(_T.c.id)
)

# A certificate's device, key and content never change. Were they named, SQLite would write their
# indexes anew each time: a confirmation would touch half as many pages again.
_LASTING: Final = frozenset({"device_id", "key_sha256", "certificate_sha256"})

SAVE: Final = Upsert(_T, key=("serial",), kept=_LASTING, generated=frozenset({"id"}))


class Certificates(Part):
    """The port's methods about operational certificates, on one transaction."""

    def unrevoked(self, device_id: DeviceId) -> tuple[Certificate, ...]:
        """The device's certificates that aren't revoked, oldest first."""
        self._session.flush_for(("certificates", device_id))
        return tuple(_certificate(r) for r in self._session.rows(_UNREVOKED, {"wanted": device_id}))

    def newest_of_key(self, key: Fingerprint) -> Certificate | None:
        return self._one(_NEWEST_OF_KEY, key)

    def certificate_by_fingerprint(self, certificate: Fingerprint) -> Certificate | None:
        return self._one(_BY_FINGERPRINT, certificate)

    def certificate_by_serial(self, serial: CertificateSerial) -> Certificate | None:
        self._session.flush()
        found = self._session.rows(_BY_SERIAL, {"wanted": serial})
        return _certificate(found[0]) if found else None

    def certificates_of(self, device_ids: Sequence[DeviceId]) -> list[Certificate]:
        if len(device_ids) == 1:
            self._session.flush_for(("certificates", device_ids[0]))
            return certificates_in(self._session.rows(_OF_DEVICE, {"wanted": device_ids[0]}))
        wanted = iter(dict.fromkeys(device_ids))
        numbered: list[Row] = []
        while chunk := list(islice(wanted, _IDS_CHUNK)):
            query = ALL.add_columns(_T.c.id).where(_T.c.device_id.in_(chunk))
            numbered += self._session.select(query)
        numbered.sort(key=lambda row: row[-1])
        return certificates_in(row[:-1] for row in numbered)

    def unconfirmed_before(self, moment: datetime, limit: int) -> list[Certificate]:
        self._session.flush()
        bounds = {"moment": stored(moment), "at_most": limit}
        return certificates_in(self._session.rows(_UNCONFIRMED, bounds))

    def superseded_before(self, moment: datetime, limit: int) -> list[Certificate]:
        self._session.flush()
        bounds = {"moment": stored(moment), "at_most": limit}
        return certificates_in(self._session.rows(_SUPERSEDED, bounds))

    def revocations(self, now: datetime) -> list[Revocation]:
        self._session.flush()
        moment = {"moment": stored(now)}
        return [
            Revocation(
                CertificateSerial(serial),
                loaded(at),
                _REASONS[reason],
                DeviceId(device_id),
                generation,
            )
            for query in (_REVOCATIONS, _HELD)
            for serial, at, reason, device_id, generation in self._session.rows(query, moment)
        ]

    def save_certificate(self, certificate: Certificate) -> None:
        seen_by = (
            ("certificates", certificate.device_id),
            certificate.key_sha256,
            certificate.certificate_sha256,
        )
        self._session.later(SAVE, certificate.serial, _row(certificate), seen_by)

    def _one(
        self, statement: "sa.Select[tuple[object, ...]]", wanted: Fingerprint
    ) -> Certificate | None:
        self._session.flush_for(wanted)
        found = self._session.rows(statement, {"wanted": wanted})
        return _certificate(found[0]) if found else None


def _row(certificate: Certificate) -> dict[str, object]:
    reason = certificate.revoked_for
    return {
        "serial": certificate.serial,
        "device_id": certificate.device_id,
        "state": certificate.state.value,
        "claim_name": certificate.claim_name,
        "key_sha256": certificate.key_sha256,
        "certificate_sha256": certificate.certificate_sha256,
        "not_before": stored(certificate.not_before),
        "not_after": stored(certificate.not_after),
        "confirm_by": stored(certificate.confirm_by),
        "confirmed_at": stored_or_none(certificate.confirmed_at),
        "revoked_at": stored_or_none(certificate.revoked_at),
        "revoked_for": None if reason is None else reason.value,
        "pem": certificate.pem,
        "held_at": stored_or_none(certificate.held_at),
        "rotation_order": certificate.rotation_order,
        "grace_until": stored_or_none(certificate.grace_until),
        "recovery_approved_until": stored_or_none(certificate.recovery_approved_until),
        "generation": certificate.generation,
    }


def certificates_in(rows: Iterable[Row]) -> list[Certificate]:
    """The certificates in rows of `ALL`."""
    return [_certificate(row) for row in rows]


def _certificate(row: Row) -> Certificate:
    (
        serial,
        device_id,
        state,
        claim_name,
        key_sha256,
        certificate_sha256,
        not_before,
        not_after,
        confirm_by,
        confirmed_at,
        revoked_at,
        revoked_for,
        pem,
        held_at,
        rotation_order,
        grace_until,
        recovery_approved_until,
        generation,
    ) = row
    return Certificate(
        serial=CertificateSerial(serial),
        device_id=DeviceId(device_id),
        state=CertificateState(state),
        claim_name=None if claim_name is None else ClaimName(claim_name),
        key_sha256=Fingerprint(key_sha256),
        certificate_sha256=Fingerprint(certificate_sha256),
        not_before=loaded(not_before),
        not_after=loaded(not_after),
        pem=pem,
        confirm_by=loaded(confirm_by),
        confirmed_at=loaded_or_none(confirmed_at),
        revoked_at=loaded_or_none(revoked_at),
        revoked_for=None if revoked_for is None else RevocationReason(revoked_for),
        held_at=loaded_or_none(held_at),
        rotation_order=rotation_order,
        grace_until=loaded_or_none(grace_until),
        recovery_approved_until=loaded_or_none(recovery_approved_until),
        generation=generation,
    )
