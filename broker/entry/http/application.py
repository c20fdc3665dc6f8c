"""All that is served over HTTP, as one ASGI application."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.entry.http.crl import CrlPages
from broker.entry.http.ocsp import OcspPages
from broker.entry.http.updates import UpdatePages
from broker.ports.clock import Clock
from broker.ports.updates import UpdateRepository
from broker.protocol.zones import Zone
from broker.services.certificate_status import StatusService


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What there is to show."""

    crl_files: Mapping[Zone, Path]
    status: StatusService
    repository: UpdateRepository
    connected: Callable[[], Mapping[Zone, bool]]
    """Which brokers the service is connected to now."""
    clock: Clock


def application(shown: Shown) -> Starlette:
    """Serves these pages and nothing else; every one of them only reads."""
    routes = [Route("/healthz", _health(shown.connected))]
    routes += CrlPages(shown.crl_files, shown.clock).routes()
    routes += OcspPages(shown.status).routes()
    routes += UpdatePages(shown.repository, shown.clock).routes()
    pages = Starlette(routes=routes)
    pages.router.redirect_slashes = False
    return pages


def _health(
    connected: Callable[[], Mapping[Zone, bool]],
) -> Callable[[Request], Awaitable[JSONResponse]]:
    async def answer(_: Request) -> JSONResponse:
        """200 while devices are answered in both zones, else 503."""
        zones = connected()
        status = 200 if all(zones.values()) else 503
        return JSONResponse(dict(zones), status, headers={"Cache-Control": "no-store"})

    return answer
