"""Certificate revocation lists (RFC 5280, 5)."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.adapters.ca.building import Signer, authority_key, signature_hash
from broker.adapters.ca.loading import read_crls
from broker.core.certificate_profile import BACKDATING
from broker.core.records import RevocationReason
from broker.ports.authorities import Revocation
from broker.protocol.names import CertificateSerial

_Built = tuple[datetime, RevocationReason, x509.RevokedCertificate]
_FLAGS: Final = {
    RevocationReason.NEVER_CONFIRMED: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.REPLACED: x509.ReasonFlags.superseded,
    RevocationReason.OPERATOR: x509.ReasonFlags.privilege_withdrawn,
    RevocationReason.RETIRED: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.SUPERSEDED: x509.ReasonFlags.superseded,
    RevocationReason.ABANDONED: x509.ReasonFlags.cessation_of_operation,
    RevocationReason.SUSPENDED: x509.ReasonFlags.certificate_hold,
}


def _reason(flag: x509.ReasonFlags) -> x509.Extension[x509.ExtensionType]:
    value = x509.CRLReason(flag)
    return x509.Extension(value.oid, False, value)


_REASONS: Final = {reason: [_reason(flag)] for reason, flag in _FLAGS.items()}


class Entries:
    """A CRL's lines as the library has them, kept for the next one: to build a line takes longer
    than to sign it, and a CRL differs from the last by a few. Some 0.3 kB a line."""

    def __init__(self) -> None:
        self._built: dict[CertificateSerial, _Built] = {}

    def of(self, revoked: Sequence[Revocation]) -> list[x509.RevokedCertificate]:
        """One for each, in this order; what isn't asked for any more is forgotten."""
        known, self._built = self._built, {}
        for each in revoked:
            built = known.get(each.serial)
            if built is None or built[:2] != (each.revoked_at, each.reason):
                built = each.revoked_at, each.reason, _entry(each)
            self._built[each.serial] = built
        return [entry for _, _, entry in self._built.values()]


def build_crl(
    issuer: Signer,
    revoked: Sequence[Revocation],
    number: int,
    now: datetime,
    next_update: datetime,
    entries: Entries | None = None,
) -> bytes:
    """A whole CRL in PEM, in force from a little before `now`.

    Backdated because a broker whose clock is behind would refuse everybody until it catches up.
    `number` rises with each CRL of the issuer (5.2.3). `entries` are those of the issuer's last.
    """
    crl_number = x509.CRLNumber(number)
    # All at once: the builder's add_… copies the list each time, which is quadratic.
    builder = x509.CertificateRevocationListBuilder(
        issuer_name=issuer.certificate.subject,
        last_update=now - BACKDATING,
        next_update=next_update,
        extensions=[
            authority_key(issuer.certificate),
            x509.Extension(crl_number.oid, False, crl_number),
        ],
        revoked_certificates=(entries or Entries()).of(revoked),
    )
    return builder.sign(issuer.key, signature_hash(issuer.key)).public_bytes(Encoding.PEM)


def build_lasting_crl(
    issuer: Signer, revoked: Sequence[Revocation], number: int, now: datetime
) -> bytes:
    """A CRL that lasts as long as its issuer, whose key may be out of reach until then."""
    return build_crl(issuer, revoked, number, now, issuer.certificate.not_valid_after_utc)


def unlisted(path: Path, serials: Iterable[CertificateSerial]) -> list[CertificateSerial]:
    """Which of these certificates no CRL in the file lists. Blocks.

    Raises:
        AuthorityError: the file can't be read.
    """
    lists = read_crls(path)
    return [each for each in serials if not any(_lists(crl, each) for crl in lists)]


def _lists(crl: x509.CertificateRevocationList, serial: CertificateSerial) -> bool:
    return crl.get_revoked_certificate_by_serial_number(int(serial, 16)) is not None


def reason_flag(reason: RevocationReason) -> x509.ReasonFlags:
    """The reason as relying parties read it (RFC 5280, 5.3.1)."""
    return _FLAGS[reason]


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    return x509.RevokedCertificateBuilder(
        int(revocation.serial, 16), revocation.revoked_at, _REASONS[revocation.reason]
    ).build()
