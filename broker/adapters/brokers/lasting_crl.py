"""A CRL file that stays the same for years, and is put back when somebody damages it."""

import asyncio
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from cryptography import x509

from broker.adapters.brokers.crl_file import check
from broker.adapters.brokers.errors import BrokerControlError
from broker.adapters.ca.errors import AuthorityError
from broker.adapters.ca.files import read_file, replace_public
from broker.adapters.ca.loading import read_certificates, read_crls


class LastingCrlFile:
    """The file, and a copy of it as it was last good; meets `broker.ports.brokers.LastingCrlFile`.

    Good is what a broker may read and the anchors have signed. CRLs of others don't count.

    Args:
        path: the file.
        anchors: certificates of the authorities whose CRLs it holds.
        copy: where the copy outlives the service; in an existing folder.
    """

    def __init__(self, path: Path, anchors: Path, copy: Path) -> None:
        self._path = path
        self._anchors = anchors
        self._copy = copy
        self._good: bytes | None = None
        self._seen: tuple[int, ...] | None = None

    async def restore(self, now: datetime) -> bool:
        """As the port says. Cheap enough for every second: it's read when it has changed."""
        return await asyncio.to_thread(self._restore, now)

    def _restore(self, now: datetime) -> bool:
        seen = _look(self._path)
        if seen is not None and seen == self._seen:
            return False
        found = self._good_in(self._path, now)
        if found is not None:
            self._keep(found, seen)
            return False
        self._seen = None
        good = self._good or self._good_in(self._copy, now)
        if good is None:
            return False
        replace_public(self._path, good)
        self._keep(good, _look(self._path))
        return True

    def _keep(self, good: bytes, seen: tuple[int, ...] | None) -> None:
        if good != self._good:
            # Memory has it, too; a disk that takes no copy keeps nobody from being revoked.
            with suppress(AuthorityError):
                replace_public(self._copy, good)
        self._good, self._seen = good, seen

    def _good_in(self, path: Path, now: datetime) -> bytes | None:
        try:
            pem = read_file(path)
            check(pem, now)
            crls = {crl.issuer: crl for crl in read_crls(path)}
            anchors = read_certificates(self._anchors)
        except (AuthorityError, BrokerControlError):
            return None
        return pem if all(_has_signed(each, crls.get(each.subject)) for each in anchors) else None


def _has_signed(anchor: x509.Certificate, crl: x509.CertificateRevocationList | None) -> bool:
    return crl is not None and crl.is_signature_valid(anchor.public_key())  # type: ignore[arg-type]


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_dev, found.st_size, found.st_ctime_ns
