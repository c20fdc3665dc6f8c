"""OCSP over HTTP (RFC 6960, appendix A; RFC 5019).

POST /ocsp              the request in DER
GET /ocsp/{request}     the same in base64, as a URL has it
"""

import base64
import binascii
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from broker.entry.http.caching import NOTHING_GUESSED, Content, cached
from broker.services.certificate_status import MALFORMED, StatusAnswer, StatusService

_TYPE: Final = "application/ocsp-response"
_FRESH_S: Final = 60
_NOT_KEPT: Final = {"Cache-Control": "no-store", **NOTHING_GUESSED}


class OcspPages:
    """Answers every request with status 200: what is wrong with one, OCSP itself says."""

    def __init__(self, status: StatusService) -> None:
        self._status = status

    def routes(self) -> list[Route]:
        """Where it's asked."""
        return [
            Route("/ocsp", self._post, methods=["POST"]),
            Route("/ocsp/{request:path}", self._get, methods=["GET"]),
        ]

    async def _post(self, request: Request) -> Response:
        answer = await self._status.answer(await _body(request))
        return Response(answer.der, media_type=_TYPE, headers=_NOT_KEPT)

    async def _get(self, request: Request) -> Response:
        """The only one that caches keep (RFC 5019, 6)."""
        try:
            der = base64.b64decode(request.path_params["request"].encode(), validate=True)
        except (binascii.Error, ValueError):
            return Response(MALFORMED.der, media_type=_TYPE, headers=_NOT_KEPT)
        return _kept(request, await self._status.answer(der))


async def _body(request: Request) -> bytes:
    """All of it: the server lets none in that is larger than a question may be."""
    try:
        return await request.body()
    except ClientDisconnect:  # nobody hears it; but it isn't a fault that belongs into the log
        raise HTTPException(400) from None


def _kept(request: Request, answer: StatusAnswer) -> Response:
    if answer.this_update is None or answer.next_update is None:
        return Response(answer.der, media_type=_TYPE, headers=_NOT_KEPT)
    control = f"public, max-age={_FRESH_S}, no-transform, must-revalidate"
    response = cached(request, Content.of(answer.der), _TYPE, control, answer.this_update)
    response.headers["Expires"] = _http_date(answer.next_update)
    return response


def _http_date(moment: datetime) -> str:
    return format_datetime(moment, usegmt=True)
