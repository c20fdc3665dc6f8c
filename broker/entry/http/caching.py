"""Answers that caches may keep, and the requests that ask whether theirs still holds (RFC 9110,
13; RFC 9111, 5.2.2).
"""

import hashlib
from datetime import datetime
from email.utils import format_datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

FOR_EVER: Final = "public, max-age=31536000, immutable"
NOTHING_GUESSED: Final = {"X-Content-Type-Options": "nosniff"}


def strong_tag(content: bytes) -> str:
    """An ETag that is another one for other bytes."""
    return f'"{hashlib.sha256(content).hexdigest()}"'


def has_already(request: Request, tag: str) -> bool:
    """Whether the client has what `tag` names; then 304 is the answer (RFC 9110, 13.1.2)."""
    wanted = request.headers.get("if-none-match", "")
    known = [each.strip().removeprefix("W/") for each in wanted.split(",")]
    return tag in known or known == ["*"]


def cached(
    request: Request,
    content: bytes,
    media_type: str,
    cache_control: str,
    modified: datetime | None = None,
) -> Response:
    """The content, or that it's what the client has already."""
    tag = strong_tag(content)
    headers = {"ETag": tag, "Cache-Control": cache_control, **NOTHING_GUESSED}
    if modified is not None:
        headers["Last-Modified"] = format_datetime(modified, usegmt=True)
    if has_already(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type=media_type, headers=headers)
