"""What has been published for devices to install, unchanged: TUF's metadata and the images.

    /updates/metadata/{file}                            such as timestamp.json, 3.root.json
    /updates/targets/{folder}/{sha256}.{file name}      TUF's consistent-snapshot names

Only what the repository says it has published is found; a path of the URL never meets the disk.
"""

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from broker.entry.http.caching import (
    FOR_EVER,
    NOTHING_GUESSED,
    Content,
    cached,
    has_already,
)
from broker.ports.clock import Clock
from broker.ports.updates import UpdateCode, UpdateError, UpdateRepository
from broker.protocol.updates import TargetPath

_LOOK_AGAIN_S: Final = 1.0
_METADATA_FRESH: Final = "public, max-age=30"
_TARGET: Final = re.compile(r"(?P<folder>(?:[^/]+/)*)(?P<sha256>[0-9a-f]{64})\.(?P<name>[^/]+)\Z")
_ONE_RANGE: Final = re.compile(rb"bytes=(?:([0-9]{1,15})-([0-9]{1,15})?|-[0-9]{1,15})\Z")


@dataclass(frozen=True)
class _Metadata:
    """The files, and when they were looked at."""

    files: Mapping[str, bytes]
    at: float


class UpdatePages:
    """Serves one repository, which may come into being later."""

    def __init__(self, repository: UpdateRepository, clock: Clock) -> None:
        self._repository = repository
        self._clock = clock
        self._metadata: _Metadata | None = None
        self._looking = asyncio.Lock()

    def routes(self) -> list[Route]:
        """Where they are found."""
        return [
            Route("/updates/metadata/{file}", self._metadata_file),
            Route("/updates/targets/{path:path}", self._target),
        ]

    async def _metadata_file(self, request: Request) -> Response:
        name = request.path_params["file"]
        content = (await self._files()).get(name)
        if content is None:
            raise HTTPException(404)
        control = FOR_EVER if name[0].isdigit() else _METADATA_FRESH
        return cached(request, Content.of(content), "application/json", control)

    async def _files(self) -> Mapping[str, bytes]:
        """All files at one moment, looked at once a second at most."""
        async with self._looking:
            now = self._clock.monotonic()
            if self._metadata is None or now - self._metadata.at >= _LOOK_AGAIN_S:
                found = await asyncio.to_thread(self._repository.files)
                self._metadata = _Metadata(found, now)
            return self._metadata.files

    async def _target(self, request: Request) -> Response:
        wanted = _TARGET.match(request.path_params["path"])
        if wanted is None:
            raise HTTPException(404)
        sha256 = wanted["sha256"]
        file = await self._image(_target_path(wanted["folder"] + wanted["name"]), sha256)
        tag = f'"{sha256}"'
        headers = {"ETag": tag, "Cache-Control": FOR_EVER, **NOTHING_GUESSED}
        if has_already(request, tag):
            return Response(status_code=304, headers=headers)
        _keep_one_range(request)
        return FileResponse(file, headers=headers, media_type="application/octet-stream")

    async def _image(self, path: str, sha256: str) -> Path:
        try:
            return await asyncio.to_thread(self._repository.image, path, sha256)
        except UpdateError as error:
            if error.code is UpdateCode.IMAGE_UNKNOWN:
                raise HTTPException(404) from error
            raise


def _target_path(text: str) -> str:
    try:
        return msgspec.convert(text, TargetPath)
    except msgspec.ValidationError as error:
        raise HTTPException(404) from error


def _keep_one_range(request: Request) -> None:
    """Drops a Range that isn't one valid range of bytes of a GET; then the whole is the answer.

    RFC 9110 (14.2) wants other units and other methods to be ignored, which Starlette refuses with
    400 or obeys; and several ranges could be made to cost more than the file.
    """
    headers = request.scope["headers"]
    given = [value for name, value in headers if name == b"range"]
    if not given:
        return
    valid = _ONE_RANGE.match(given[0])
    is_empty = valid is not None and valid[2] is not None and int(valid[2]) < int(valid[1])
    if len(given) > 1 or valid is None or is_empty or request.method != "GET":
        request.scope["headers"] = [each for each in headers if each[0] != b"range"]
