"""CRLs for relying parties that aren't brokers: as the files that brokers read, and one by one.

/crl/{zone}.pem             the zone's file, CRLs in PEM
/crl/{zone}.der             the first of them, the zone's own issuer's
/crl/{zone}/{key id}.der    each by its issuer's authorityKeyIdentifier, in hex
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from broker.entry.http.caching import Content, cached
from broker.ports.clock import Clock
from broker.protocol.zones import Zone

_PEM: Final = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\n?", re.DOTALL)
_DER_TYPE: Final = "application/pkix-crl"  # RFC 2585, 4.2
_PEM_TYPE: Final = "application/x-pem-file"
_FRESH_S: Final = 60
"""How long a cache needn't ask: a CRL is valid for days, but the next one may come at once."""


@dataclass(frozen=True)
class _Lists:
    """What a zone's file holds."""

    stamp: tuple[int, ...]
    pem: Content
    this_update: datetime
    next_update: datetime
    by_key: Mapping[str, tuple[Content, datetime, datetime]]
    """Each CRL in DER with its thisUpdate and nextUpdate, in the file's order."""


class CrlPages:
    """Reads the files anew when they have changed."""

    def __init__(self, files: Mapping[Zone, Path], clock: Clock) -> None:
        self._files = files
        self._clock = clock
        self._read: dict[Zone, _Lists] = {}

    def routes(self) -> list[Route]:
        """Where they are found."""
        return [
            Route("/crl/{zone}.pem", self._file),
            Route("/crl/{zone}.der", self._first),
            Route("/crl/{zone}/{key}.der", self._one),
        ]

    async def _file(self, request: Request) -> Response:
        lists = await self._lists(request)
        return self._answer(request, lists.pem, _PEM_TYPE, lists.this_update, lists.next_update)

    async def _first(self, request: Request) -> Response:
        lists = await self._lists(request)
        return self._answer_der(request, lists, next(iter(lists.by_key)))

    async def _one(self, request: Request) -> Response:
        lists = await self._lists(request)
        return self._answer_der(request, lists, request.path_params["key"])

    async def _lists(self, request: Request) -> _Lists:
        try:
            zone = Zone(request.path_params["zone"])
            return await asyncio.to_thread(self._current, zone)
        except (ValueError, FileNotFoundError) as error:
            raise HTTPException(404) from error

    def _current(self, zone: Zone) -> _Lists:
        """In a thread; two at once only read the file twice."""
        path = self._files[zone]
        found = path.stat()
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._read.get(zone)
        if known is None or known.stamp != stamp:
            known = self._read[zone] = _parsed(path.read_bytes(), stamp)
        return known

    def _answer_der(self, request: Request, lists: _Lists, key: str) -> Response:
        if key not in lists.by_key:
            raise HTTPException(404)
        der, this_update, next_update = lists.by_key[key]
        return self._answer(request, der, _DER_TYPE, this_update, next_update)

    def _answer(
        self, request: Request, content: Content, media_type: str, begins: datetime, ends: datetime
    ) -> Response:
        left = int((ends - self._clock.now()).total_seconds())
        control = f"public, max-age={max(0, min(_FRESH_S, left))}, must-revalidate"
        return cached(request, content, media_type, control, begins)


def _parsed(pem: bytes, stamp: tuple[int, ...]) -> _Lists:
    by_key = {}
    for block in _PEM.findall(pem):
        crl = x509.load_pem_x509_crl(block)
        extension = crl.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
        der = Content.of(crl.public_bytes(Encoding.DER))
        ends = crl.next_update_utc or crl.last_update_utc
        by_key[(extension.value.key_identifier or b"").hex()] = (der, crl.last_update_utc, ends)
    begins = max(each[1] for each in by_key.values())
    ends = min(each[2] for each in by_key.values())
    return _Lists(stamp, Content.of(pem), begins, ends, by_key)
