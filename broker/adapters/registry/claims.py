"""Claim certificates in the registry."""

from dataclasses import replace
from typing import Final

import sqlalchemy as sa

from broker.adapters.registry.moments import loaded, loaded_or_none, stored, stored_or_none
from broker.adapters.registry.schema import CLAIM_CERTIFICATE
from broker.adapters.registry.session import Part, Row, Session, Upsert
from broker.core.records import ClaimCertificate
from broker.protocol.names import CertificateSerial, ClaimName

_T: Final = CLAIM_CERTIFICATE
_ALL: Final = sa.select(_T)
_ONE: Final = _ALL.where(_T.c.name == sa.bindparam("wanted"))
_LISTED: Final = _ALL.order_by(_T.c.name)
_SAVE: Final = Upsert(_T, key=("name",), kept=frozenset({"claims"}))

SAVE_COUNT: Final = (
    sa.update(_T)
    .where(_T.c.name == sa.bindparam("wanted"))
    .values(claims=sa.bindparam("claims_now"))
)


class Claims(Part):
    """The port's methods about claim certificates, on one transaction.

    What was read once is remembered: while a transaction is open nobody else can change it.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._claims_read: dict[ClaimName, ClaimCertificate | None] = {}

    def claim_certificate(self, name: ClaimName) -> ClaimCertificate | None:
        try:
            return self._claims_read[name]
        except KeyError:
            found = self._session.rows(_ONE, {"wanted": name})
        claim = self._claims_read[name] = _claim(found[0]) if found else None
        return claim

    def claim_certificates(self) -> list[ClaimCertificate]:
        self._session.flush()
        return [_claim(row) for row in self._session.rows(_LISTED, {})]

    def save_claim_certificate(self, claim: ClaimCertificate) -> None:
        self._session.write(
            _SAVE,
            [
                {
                    "name": claim.name,
                    "serial": claim.serial,
                    "not_before": stored(claim.not_before),
                    "not_after": stored(claim.not_after),
                    "max_claims": claim.max_claims,
                    "claims": claim.claims,
                    "revoked_at": stored_or_none(claim.revoked_at),
                }
            ],
        )
        self._claims_read.pop(claim.name, None)

    def count_claim(self, name: ClaimName, by: int) -> None:
        claim = self.claim_certificate(name)
        if claim is None:
            return
        counted = self._claims_read[name] = replace(claim, claims=max(claim.claims + by, 0))
        # One row for the whole transaction, however many claims it holds.
        self._session.later(SAVE_COUNT, name, {"wanted": name, "claims_now": counted.claims})


def _claim(row: Row) -> ClaimCertificate:
    name, serial, not_before, not_after, max_claims, claims, revoked_at = row
    return ClaimCertificate(
        ClaimName(name),
        CertificateSerial(serial),
        loaded(not_before),
        loaded(not_after),
        max_claims,
        claims,
        loaded_or_none(revoked_at),
    )
