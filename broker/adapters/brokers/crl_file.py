"""The file from which a zone's broker reads its CRLs: checked before anybody relies on it.

Mosquitto 2.0 carries on without any CRL when it is told to read a damaged one, and 2.1 exits; an
expired one locks out everybody. So nothing is put in place, or signalled, that wasn't read first.
"""

import asyncio
import os
import re
from collections import Counter
from collections.abc import Hashable
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Final, NamedTuple

from cryptography import x509

from broker.adapters.brokers.errors import BrokerControlCode, BrokerControlError
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.files import read_file, replace_public

_CRL: Final = re.compile(rb"-----BEGIN X509 CRL-----[^-]*-----END X509 CRL-----\s*")
_KNOWN_AT_MOST: Final = 8


class WatchedCrlFile:
    """A CRL file that is looked after; meets `broker.ports.brokers.WatchedCrlFile`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pem: bytes | None = None
        self._looked_at: os.stat_result | None = None

    async def swap(self, pem: bytes, now: datetime) -> None:
        """As the function `swap`; it doesn't block."""
        self._pem = self._looked_at = None
        await asyncio.to_thread(swap, self._path, pem, now)
        self._pem = pem

    def look(self) -> Hashable:
        """Another value after each change of the file, whoever's it is. Blocks."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_dev, found.st_size, found.st_ctime_ns

    async def is_intact(self) -> bool:
        """Whether the file is what was put there last. Cheap enough for several times a second: it
        is read only when its metadata have changed."""
        return await asyncio.to_thread(self._is_intact)

    def _is_intact(self) -> bool:
        try:
            found = self._path.stat()
            if _is_same(found, self._looked_at):
                return True
            is_ours = self._path.read_bytes() == self._pem
        except OSError:
            return False
        self._looked_at = found if is_ours else None
        return is_ours


def _is_same(found: os.stat_result, known: os.stat_result | None) -> bool:
    """Whether nothing was written meanwhile: a write changes ctime, which can't be set back."""
    if known is None:
        return False
    return (found.st_ino, found.st_dev, found.st_size, found.st_ctime_ns) == (
        *(known.st_ino, known.st_dev, known.st_size, known.st_ctime_ns),
    )


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
    try:
        check(pem, now)
    except BrokerControlError as error:
        raise BrokerControlError(error.code, f"{path}: {error.message}", error.remedy) from error


def check(pem: bytes, now: datetime) -> None:
    """Raises unless `pem` is CRLs and nothing else, of different issuers, all valid at `now`.

    Raises:
        BrokerControlError: CRL_INVALID.
    """
    for crl in _contents(pem):
        _check_time(crl, now)


class _Dates(NamedTuple):
    """What of a CRL depends on when one looks."""

    issuer: str
    since: datetime
    until: datetime | None


_known: dict[bytes, list[_Dates]] = {}
"""By the content's digest: a file is checked when it's written, and again by whoever has a broker
read it; to parse 100,000 entries takes half as long as to sign them."""
_remembering: Final = Lock()


def _contents(pem: bytes) -> list[_Dates]:
    digest = sha256(pem).digest()
    found = _known.get(digest)
    if found is None:
        found = _parsed(pem)
        with _remembering:
            while len(_known) >= _KNOWN_AT_MOST:
                del _known[next(iter(_known))]
            _known[digest] = found
    return found


def _parsed(pem: bytes) -> list[_Dates]:
    end, found = 0, []
    for block in _CRL.finditer(pem):
        if block.start() != end:
            break
        end = block.end()
        crl = _parse(block.group())
        found.append(_Dates(crl.issuer.rfc4514_string(), crl.last_update_utc, crl.next_update_utc))
    if not found or end != len(pem):
        raise _invalid("it isn't a sequence of whole PEM CRLs")
    for issuer, count in Counter(each.issuer for each in found).items():
        if count > 1:
            raise _invalid(f"it holds two CRLs of {issuer}")
    return found


def _parse(block: bytes) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(block)
    except ValueError as error:
        raise _invalid("a CRL in it can't be parsed") from error


def _check_time(crl: _Dates, now: datetime) -> None:
    # A broker refuses every certificate of an issuer whose CRL doesn't hold at the time.
    if crl.since > now:
        raise _invalid(f"the CRL of {crl.issuer} isn't valid before {crl.since:%FT%TZ}")
    if crl.until is None or crl.until <= now:
        raise _invalid(f"the CRL of {crl.issuer} has no nextUpdate in the future")


def _invalid(why: str) -> BrokerControlError:
    return BrokerControlError(
        BrokerControlCode.CRL_INVALID,
        f"the CRL file is not used, {why}",
        "check the clock, then have the CRLs signed again",
    )
