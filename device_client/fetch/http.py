"""An image from an HTTP server: in one piece, or from where the sink is (RFC 9110, 13 and 14).

What a server says is checked before a byte is taken: a server that ignores the range, has another
length or sends without end costs one exchange, and never more bytes than the image has.
"""

import re
import ssl
from typing import Final
from urllib.parse import SplitResult, urljoin, urlsplit

from broker.protocol.updates import AssignedTarget
from device_client.fetch.errors import ImageTooLong, ImageUnavailable, SourceUnfit
from device_client.fetch.exchange import Exchange, Reach, exchanged, shown
from device_client.fetch.hosts import check_host
from device_client.fetch.intake import Intake, Pace
from device_client.fetch.limits import LONGEST_PAUSE_S, FetchLimits

_CHUNK: Final = 65_536
REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_LATER: Final = frozenset({408, 425, 429})
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15}|\*)\Z")
_NUMBER: Final = re.compile(r"[0-9]{1,15}\Z")


class HttpSource:
    """One URL, over several attempts."""

    def __init__(
        self, url: str, target: AssignedTarget, limits: FetchLimits, context: ssl.SSLContext
    ) -> None:
        self.name = url
        self._length = target.length
        self._limits = limits
        self._context = context
        self._pace = Pace(limits)
        self._tag: str | None = None
        """The strong ETag of what this source gave last."""
        self._restarts = 0

    async def pour(self, intake: Intake) -> None:
        """All that the sink lacks.

        Raises:
            FetchError: it didn't get that far; what came is in the sink.
        """
        url, least = split(self.name), Reach.HERE
        for _ in range(self._limits.redirects + 1):
            check_host(url, self._limits.hosts)
            headers = self._headers(intake.position)
            timeout_s = self._limits.timeout_s
            async with exchanged(url, self._context, timeout_s, headers, least) as exchange:
                if exchange.status not in REDIRECTS:
                    await self._take_answer(exchange, intake)
                    return
                url, least = next_hop(url, exchange), max(least, exchange.reach)
        raise SourceUnfit(f"{shown(url)} leads from one place to the next without end.")

    def _headers(self, position: int) -> dict[str, str]:
        headers = {
            "Accept-Encoding": "identity",
            "Connection": "close",
            "User-Agent": "muster-device",
        }
        if position:
            headers["Range"] = f"bytes={position}-"
            if self._tag is not None:
                headers["If-Range"] = self._tag
        return headers

    async def _take_answer(self, exchange: Exchange, intake: Intake) -> None:
        _check_status(exchange)
        if (exchange.header("Content-Encoding") or "identity").lower() != "identity":
            raise SourceUnfit(f"{exchange} sends the image encoded.")
        if exchange.status == 206:
            await self._check_range(exchange, intake)
        else:
            self._check_total(exchange, _content_length(exchange) or self._length)
            if intake.position:
                await self._start_again(exchange, intake)
        self._tag = _strong_tag(exchange) or self._tag
        await self._read(exchange, intake)

    async def _check_range(self, exchange: Exchange, intake: Intake) -> None:
        given = _CONTENT_RANGE.match(exchange.header("Content-Range") or "")
        if given is None or int(given[1]) != intake.position or not intake.position:
            raise SourceUnfit(f"{exchange} sends another part than was asked for.")
        if given[3] != "*":
            self._check_total(exchange, int(given[3]))
        self._check_end(exchange, int(given[2]) + 1)
        self._check_end(exchange, intake.position + _content_length(exchange))
        tag = _strong_tag(exchange)
        if None not in (tag, self._tag) and tag != self._tag:
            # It was asked to send the rest only of what it had sent before.
            await self._start_again(exchange, intake)
            self._tag = None
            raise ImageUnavailable(f"{exchange} has changed in the middle.")

    def _check_end(self, exchange: Exchange, end: int) -> None:
        if end > self._length:
            raise ImageTooLong(f"{exchange} has {end} bytes where {self._length} are signed.")

    def _check_total(self, exchange: Exchange, total: int) -> None:
        self._check_end(exchange, total)
        if total < self._length:
            raise SourceUnfit(f"{exchange} has {total} bytes where {self._length} are signed.")

    async def _start_again(self, exchange: Exchange, intake: Intake) -> None:
        """It sends from the first byte, or something else than before."""
        self._restarts += 1
        if self._restarts > self._limits.restarts:
            raise SourceUnfit(f"{exchange} doesn't let a download be resumed.")
        await intake.restart()

    async def _read(self, exchange: Exchange, intake: Intake) -> None:
        while intake.left:
            most = intake.room(min(_CHUNK, intake.left + 1))
            self._pace.begin()
            try:
                data = await exchange.read(most)
            except ImageUnavailable:
                self._pace.got(0)
                raise
            self._pace.got(len(data))
            if not data:
                raise ImageUnavailable(f"{exchange} ended too soon.")
            await intake.take(data)


def _check_status(exchange: Exchange) -> None:
    status = exchange.status
    if status in (200, 206):
        return
    told = exchange.header("Retry-After") or ""
    if status >= 500 or status in _LATER:
        error = ImageUnavailable(f"{exchange} answers with status {status}.")
        error.retry_after_s = min(float(told), LONGEST_PAUSE_S) if _NUMBER.match(told) else 0.0
        raise error
    raise SourceUnfit(f"{exchange} answers with status {status}.")


def _content_length(exchange: Exchange) -> int:
    """What the server tells of its body's length; 0 when it tells nothing."""
    told = exchange.header("Content-Length") or ""
    return int(told) if _NUMBER.match(told) else 0


def _strong_tag(exchange: Exchange) -> str | None:
    """A weak one can't tell whether the bytes are the same (RFC 9110, 8.8.1)."""
    tag = exchange.header("ETag") or ""
    return tag if len(tag) <= 256 and re.fullmatch(r'"[!#-~]*"', tag) else None


def next_hop(url: SplitResult, exchange: Exchange) -> SplitResult:
    """Where a redirect leads.

    Raises:
        SourceUnfit: nowhere, or away from TLS.
    """
    hop = split(urljoin(url.geturl(), exchange.header("Location") or ""))
    if url.scheme == "https" and hop.scheme != "https":
        raise SourceUnfit(f"{exchange} leads to a place without TLS.")
    return hop


def split(url: str) -> SplitResult:
    """The URL's parts.

    Raises:
        SourceUnfit: it isn't one that is followed.
    """
    try:
        parts = urlsplit(url)
        has_port = parts.port is None or parts.port > 0
    except ValueError as error:
        raise SourceUnfit("A source isn't a URL.") from error
    is_plain = parts.username is None and parts.password is None
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_plain or not has_port:
        raise SourceUnfit(f"{shown(parts)} isn't a URL of an HTTP server without credentials.")
    return parts
