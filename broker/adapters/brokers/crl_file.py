"""The file from which a zone's broker reads its CRLs: checked before anybody relies on it.

Mosquitto 2.0 carries on without any CRL when it is told to read a damaged one, and 2.1 exits; an
expired one locks out everybody. So nothing is put in place, or signalled, that wasn't read first.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509

from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.files import read_file, replace_public

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----\s*", re.DOTALL)


def swap(path: Path, pem: bytes, not_before_now: datetime) -> None:
    """Puts `pem` in the place of the CRL file: readers see the old or the new, never a part.

    Durable on return; readable by everybody (a CRL is public, and the broker is another user). The
    broker goes on with what it has read until it is told. Blocks: call it in a thread.

    Args:
        pem: every CRL that the zone needs, one after the other, each issuer once.
        not_before_now: the present, aware; every CRL must hold at it.

    Raises:
        BrokerControlError: CRL_INVALID, CRL_UNWRITABLE; the old file stays as it is.
    """
    check(pem, not_before_now)
    try:
        replace_public(path, pem)
    except AuthorityError as error:
        raise BrokerControlError(
            BrokerControlCode.CRL_UNWRITABLE, error.message, error.remedy
        ) from error


def check_file(path: Path, now: datetime) -> None:
    """Raises unless a broker that reads the file now enforces every CRL in it. Blocks.

    Raises:
        BrokerControlError: CRL_UNREADABLE, CRL_INVALID.
    """
    try:
        pem = read_file(path)
    except AuthorityError as error:
        raise BrokerControlError(
            BrokerControlCode.CRL_UNREADABLE, error.message, error.remedy
        ) from error
    check(pem, now)


def check(pem: bytes, now: datetime) -> None:
    """Raises unless `pem` is CRLs and nothing else, of different issuers, all valid at `now`.

    Raises:
        BrokerControlError: CRL_INVALID.
    """
    blocks = _CRL.findall(pem)
    if not blocks or _CRL.sub(b"", pem).strip():
        raise _invalid("it isn't a sequence of whole PEM CRLs")
    issuers = set()
    for block in blocks:
        crl = _parse(block)
        issuer = crl.issuer.rfc4514_string()
        if issuer in issuers:
            raise _invalid(f"it holds two CRLs of {issuer}")
        issuers.add(issuer)
        _check_time(crl, issuer, now)


def _parse(block: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(block)
    except ValueError as error:
        raise _invalid("a CRL in it can't be parsed") from error


def _check_time(crl: x509.CertificateRevocationList, issuer: str, now: datetime) -> None:
    # A broker refuses every certificate of an issuer whose CRL doesn't hold at the time.
    if crl.last_update_utc > now:
        raise _invalid(f"the CRL of {issuer} isn't valid before {crl.last_update_utc:%FT%TZ}")
    if crl.next_update_utc is None or crl.next_update_utc <= now:
        raise _invalid(f"the CRL of {issuer} has no nextUpdate in the future")


def _invalid(why: str) -> BrokerControlError:
    return BrokerControlError(
        BrokerControlCode.CRL_INVALID,
        f"the CRL file is not used, {why}",
        "check the clock, then have the CRLs signed again",
    )
