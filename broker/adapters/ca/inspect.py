"""Looking over a home's certificates, keys, anchors and CRLs, as `muster doctor` does."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.x509.oid import NameOID

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.findings import Check, Finding, Period, check_period, failed
from broker.adapters.ca.home import MusterHome, PairPaths
from broker.adapters.ca.infrastructure import issuing_for
from broker.adapters.ca.key_files import read_key
from broker.adapters.ca.loading import read_certificates, read_crls
from broker.adapters.ca.server_trust import read_server_trust
from broker.core.ca_rollover import FIRST_GENERATION
from broker.core.findings import Level
from broker.protocol.zones import Zone

_LEAF_MARGIN: Final = timedelta(days=30)
_AUTHORITY_MARGIN: Final = timedelta(days=365)
# Signed anew each day to last for seven: below five, nobody has signed for two.
_OPERATIONAL_CRL_MARGIN: Final = timedelta(days=5)

_RENEW: Final = "renew it with the infrastructure authority's key, then restart what uses it"
_REPLACE: Final = "plan the authority's replacement: docs/ca-rollover.md says how"
_RESTORE: Final = "restore the files from one backup"
_ADD: Final = "add it, or restore the file"
_REMOVE: Final = "remove it unless you added it"
_WRITE: Final = "start the service, which writes this file; if it runs, restart it"
_SERVE: Final = "start the service, which signs it each day; once it has expired nobody can connect"


@dataclass(frozen=True)
class _Subject:
    """A pair of files in the home, and what should be true of it."""

    pair: PairPaths
    issuer: Path
    margin: timedelta
    remedy: str
    key_needed: bool = True
    passphrase: bytes | None = None


@dataclass(frozen=True)
class _Counting:
    """The authorities that count at the moment: more than one of a kind in a rollover."""

    operational: list[PairPaths]
    infrastructure: list[PairPaths]
    serving: dict[Zone, PairPaths]
    """By which each zone's broker and service have their certificates."""


def inspect_home(
    home: MusterHome,
    now: datetime,
    passphrase: bytes | None = None,
    trusted: Collection[int] = (FIRST_GENERATION,),
) -> list[Finding]:
    """Everything that was checked, and what is fine too. Reads files and changes nothing.

    Encrypted keys are compared with their certificates only when there is a passphrase.

    Args:
        trusted: the operational authorities that count.
    """
    try:
        counting = _counting(home, trusted)
    except AuthorityError as error:
        return [failed(Check.FILE, home.server_trust, error)]
    findings: list[Finding] = []
    for subject in (*_authorities(home, counting, passphrase), *_leaves(home, counting)):
        findings += _inspect_pair(subject, now)
    for zone in Zone:
        own = [home.claim] if zone is Zone.CLAIM else counting.operational
        anchors = own if zone is Zone.CLAIM else [home.root, *own]
        daily = zone is Zone.FLEET
        findings += _inspect_anchors(home.client_anchors(zone), anchors, by_service=daily)
        findings += _inspect_crls(home.crl_file(zone), own, now, signed_daily=daily)
    findings += _inspect_anchors(home.server_anchors, counting.infrastructure, by_service=False)
    findings += _inspect_crls(
        home.infrastructure_crl, counting.infrastructure, now, signed_daily=False
    )
    return findings


def _counting(home: MusterHome, trusted: Collection[int]) -> _Counting:
    found = read_server_trust(home)
    infrastructure = (FIRST_GENERATION,) if found is None else found.rollover.trusted
    return _Counting(
        [home.operational_of(generation) for generation in sorted(trusted)],
        [home.infrastructure_of(generation) for generation in infrastructure],
        {zone: home.infrastructure_of(issuing_for(home, zone)) for zone in Zone},
    )


def _authorities(home: MusterHome, counting: _Counting, passphrase: bytes | None) -> list[_Subject]:
    pairs = [
        (home.root, home.root, False),
        *((pair, home.root, True) for pair in counting.operational),
        (home.claim, home.claim, False),
        *((pair, pair, False) for pair in counting.infrastructure),
    ]
    return [
        _Subject(pair, issuer.certificate, _AUTHORITY_MARGIN, _REPLACE, needed, passphrase)
        for pair, issuer, needed in pairs
    ]


def _leaves(home: MusterHome, counting: _Counting) -> list[_Subject]:
    return [
        _Subject(pair, counting.serving[zone].certificate, _LEAF_MARGIN, _RENEW)
        for zone in Zone
        for pair in (home.broker(zone), home.service(zone))
    ]


def _inspect_pair(subject: _Subject, now: datetime) -> Iterator[Finding]:
    path = subject.pair.certificate
    try:
        certificate = read_certificates(path)[0]
    except AuthorityError as error:
        yield failed(Check.FILE, path, error)
        return
    period = Period(
        certificate.not_valid_before_utc, certificate.not_valid_after_utc, subject.margin
    )
    yield check_period(Check.EXPIRY, path, _name(certificate), period, now, subject.remedy)
    issuer = _readable(subject.issuer)
    if issuer is not None:
        yield _inspect_chain(path, certificate, issuer)
    yield _inspect_key(subject, certificate)


def _inspect_chain(path: Path, certificate: x509.Certificate, issuer: x509.Certificate) -> Finding:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError, TypeError):
        message = f"{_name(certificate)} wasn't signed by {_name(issuer)}"
        return Finding(Level.ERROR, Check.CHAIN, path, message, _RESTORE)
    return Finding(Level.OK, Check.CHAIN, path, f"signed by {_name(issuer)}")


def _inspect_key(subject: _Subject, certificate: x509.Certificate) -> Finding:
    path = subject.pair.key
    try:
        key = read_key(path, subject.passphrase)
    except AuthorityError as error:
        if error.code is AuthorityCode.FILE_MISSING and not subject.key_needed:
            return Finding(Level.OK, Check.KEY, path, "kept elsewhere")
        if error.code is AuthorityCode.PASSPHRASE_MISSING:
            return Finding(Level.OK, Check.KEY, path, "encrypted; not compared without passphrase")
        return failed(Check.KEY, path, error)
    if key.public_key() != certificate.public_key():
        message = f"isn't the key of {subject.pair.certificate}"
        return Finding(Level.ERROR, Check.KEY, path, message, _RESTORE, AuthorityCode.KEY_MISMATCH)
    return Finding(Level.OK, Check.KEY, path, f"is the key of {_name(certificate)}")


def _inspect_anchors(
    path: Path, expected: list[PairPaths], *, by_service: bool
) -> Iterator[Finding]:
    """An anchor that is missing locks out; one too many lets in.

    Args:
        by_service: whether the service keeps this file, as the registry has it.
    """
    try:
        present = set(read_certificates(path))
    except AuthorityError as error:
        yield failed(Check.ANCHORS, path, error)
        return
    wanted = [_readable(pair.certificate) for pair in expected]
    if None in wanted:
        return
    add, remove = (_WRITE, _WRITE) if by_service else (_ADD, _REMOVE)
    for anchor in wanted:
        if anchor is not None and anchor not in present:
            message = f"{_name(anchor)} is missing"
            yield Finding(Level.ERROR, Check.ANCHORS, path, message, add)
    for extra in present.difference(anchor for anchor in wanted if anchor is not None):
        message = f"{_name(extra)} is trusted, and isn't an authority of this home"
        yield Finding(Level.WARNING, Check.ANCHORS, path, message, remove)
    if present == set(wanted):
        yield Finding(Level.OK, Check.ANCHORS, path, "holds what it should")


def _inspect_crls(
    path: Path, issuers: list[PairPaths], now: datetime, *, signed_daily: bool
) -> Iterator[Finding]:
    try:
        lists = read_crls(path)
    except AuthorityError as error:
        yield failed(Check.FILE, path, error)
        return
    for pair in issuers:
        issuer = _readable(pair.certificate)
        if issuer is not None:
            yield _inspect_crl(path, lists, issuer, now, signed_daily=signed_daily)


def _inspect_crl(
    path: Path,
    lists: list[x509.CertificateRevocationList],
    issuer: x509.Certificate,
    now: datetime,
    *,
    signed_daily: bool,
) -> Finding:
    name = _name(issuer)
    remedy = _SERVE if signed_daily else "sign it anew with the authority's key"
    found = next((crl for crl in lists if crl.issuer == issuer.subject), None)
    if found is None:
        message = f"holds no CRL of {name}, so its certificates are refused"
        return Finding(Level.ERROR, Check.CRL_SIGNATURE, path, message, remedy)
    key = issuer.public_key()
    if not found.is_signature_valid(key):  # type: ignore[arg-type] # an authority's key can sign
        message = f"the CRL of {name} wasn't signed by it"
        return Finding(Level.ERROR, Check.CRL_SIGNATURE, path, message, remedy)
    if found.next_update_utc is None:
        message = f"the CRL of {name} doesn't say until when it's in force"
        return Finding(Level.ERROR, Check.CRL_EXPIRY, path, message, remedy)
    margin = _OPERATIONAL_CRL_MARGIN if signed_daily else _AUTHORITY_MARGIN
    period = Period(found.last_update_utc, found.next_update_utc, margin)
    return check_period(Check.CRL_EXPIRY, path, f"the CRL of {name}", period, now, remedy)


def _readable(path: Path) -> x509.Certificate | None:
    """The certificate, or none where its own inspection tells what is wrong with it."""
    try:
        return read_certificates(path)[0]
    except AuthorityError:
        return None


def _name(certificate: x509.Certificate) -> str:
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else certificate.subject.rfc4514_string()
