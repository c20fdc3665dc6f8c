"""Images and metadata over HTTP: the right bytes, whatever part is asked for, and no others."""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette

from broker.entry.http.updates import UpdatePages
from broker.ports.updates import UpdateCode, UpdateError
from tests.support.http import Answer, ask, served
from tests.support.operating import SetClock

IMAGE = bytes(range(256)) * 8
SHA256 = hashlib.sha256(IMAGE).hexdigest()
TARGET = f"/updates/targets/lamp/1.2/{SHA256}.image.bin"
TAG = f'"{SHA256}"'
NAMES = {"lamp/1.2/image.bin": SHA256}


class Repository:
    """Meets as much of `broker.ports.updates.UpdateRepository` as is asked of it here."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "the.image"
        self.file.write_bytes(IMAGE)
        self.metadata: dict[str, bytes] = {"timestamp.json": b"{1}", "1.root.json": b"{2}"}
        self.looks = 0

    def files(self) -> Mapping[str, bytes]:
        self.looks += 1
        return dict(self.metadata)

    def image(self, path: str, sha256: str) -> Path:
        if NAMES.get(path) != sha256:
            raise UpdateError(UpdateCode.IMAGE_UNKNOWN, "no such image", "")
        return self.file

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"nobody should ask for {name}")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def port(repository: Repository, clock: SetClock) -> AsyncIterator[int]:
    async with served(Starlette(routes=UpdatePages(repository, clock).routes())) as found:
        yield found


async def test_an_image_has_its_hash_as_its_tag(port: int) -> None:
    answer = await ask(port, TARGET)
    assert (answer.status, answer.body) == (200, IMAGE)
    assert answer.headers["etag"] == TAG
    assert answer.headers["content-length"] == str(len(IMAGE))
    assert answer.headers["accept-ranges"] == "bytes"
    assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("0-0", 0, 1),
        ("0-", 0, 2048),
        ("2047-", 2047, 2048),
        ("-5", 2043, 2048),
        ("5-999999", 5, 2048),
    ],
)
async def test_a_range_is_answered_with_exactly_it(
    port: int, asked: str, start: int, end: int
) -> None:
    answer = await ask(port, TARGET, {"Range": f"bytes={asked}"})
    assert (answer.status, answer.body) == (206, IMAGE[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(IMAGE)}"
    assert answer.headers["content-length"] == str(end - start)


@pytest.mark.parametrize("asked", ["2048-", "2048-4000", "-0"])
async def test_a_range_beyond_the_end_is_refused_with_the_size(port: int, asked: str) -> None:
    answer = await ask(port, TARGET, {"Range": f"bytes={asked}"})
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(IMAGE)}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-5", "bytes=x", "items=0-1", "bytes=-", ""]
)
async def test_what_isn_t_one_range_of_bytes_is_ignored(port: int, asked: str) -> None:
    answer = await ask(port, TARGET, {"Range": asked})
    assert (answer.status, answer.body) == (200, IMAGE)


async def test_if_range_decides_between_the_rest_and_the_whole(port: int) -> None:
    async def status(if_range: str) -> int:
        headers = {"Range": "bytes=100-", "If-Range": if_range}
        return (await ask(port, TARGET, headers)).status

    assert await status(TAG) == 206
    assert await status('"another"') == 200
    assert await status(f"W/{TAG}") == 200
    modified = (await ask(port, TARGET)).headers["last-modified"]
    assert await status(modified) == 206
    assert await status("Thu, 01 Jan 1970 00:00:00 GMT") == 200


async def test_a_head_request_knows_no_ranges(port: int) -> None:
    answer = await ask(port, TARGET, {"Range": "bytes=5-9"}, method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(IMAGE))


async def test_who_has_it_isn_t_sent_it(port: int) -> None:
    assert (await ask(port, TARGET, {"If-None-Match": f'"x", {TAG}'})).status == 304
    assert (await ask(port, TARGET, {"If-None-Match": '"x"'})).status == 200


UNPUBLISHED = [
    f"/updates/targets/{SHA256}.image.bin",
    f"/updates/targets/lamp/1.2/{'0' * 64}.image.bin",
    "/updates/targets/lamp/1.2/image.bin",
    f"/updates/targets/lamp/../lamp/1.2/{SHA256}.image.bin",
    f"/updates/targets/lamp/%2e%2e/lamp/1.2/{SHA256}.image.bin",
    f"/updates/targets//lamp/1.2/{SHA256}.image.bin",
    f"/updates/targets/lamp%2f1.2%2f..%2f1.2/{SHA256}.image.bin",
    f"/updates/targets/lamp/1.2/{SHA256}.image.bin/",
    f"/updates/targets/lamp/1.2/{SHA256}.image.bin%00",
    f"/updates/targets/{SHA256}.%2fetc%2fpasswd",
    f"/updates/targets/etc/{SHA256}.passwd",
    "/updates/metadata/../../ca/root.key",
    "/updates/metadata/%2e%2e%2f%2e%2e%2fca%2froot.key",
    "/updates/metadata/9.root.json",
    "/updates/metadata/",
    "/updates/",
    "/",
]


async def test_what_isn_t_published_isn_t_found(port: int) -> None:
    found = [path for path in UNPUBLISHED if (await ask(port, path)).status != 404]
    assert found == []


async def test_nothing_can_be_changed(port: int) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        assert (await ask(port, TARGET, method=method)).status == 405


async def test_metadata_is_served_unchanged(port: int) -> None:
    answer = await ask(port, "/updates/metadata/timestamp.json")
    assert (answer.status, answer.body) == (200, b"{1}")
    assert answer.headers["content-type"] == "application/json"
    assert "immutable" not in answer.headers["cache-control"]
    again = {"If-None-Match": answer.headers["etag"]}
    assert (await ask(port, "/updates/metadata/timestamp.json", again)).status == 304
    root = await ask(port, "/updates/metadata/1.root.json")
    assert root.body == b"{2}"
    assert "immutable" in root.headers["cache-control"]


async def test_many_readers_cost_one_look_a_second(
    port: int, repository: Repository, clock: SetClock
) -> None:
    for _ in range(5):
        await ask(port, "/updates/metadata/timestamp.json")
    assert repository.looks == 1
    repository.metadata["timestamp.json"] = b"{3}"
    clock.at += timedelta(seconds=1)
    assert (await ask(port, "/updates/metadata/timestamp.json")).body == b"{3}"


@settings(
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(asked=st.from_regex(r"bytes=([0-9]{0,5})-([0-9]{0,5})", fullmatch=True))
async def test_any_range_gives_what_it_says(port: int, asked: str) -> None:
    answer = await ask(port, TARGET, {"Range": asked})
    assert answer.body == expected(answer, asked)


def expected(answer: Answer, asked: str) -> bytes:
    """By the standard's words (RFC 9110, 14.1.2), apart from the code that is tested."""
    first, last = asked.removeprefix("bytes=").split("-")
    if (not first and not last) or (first and last and int(last) < int(first)):
        assert answer.status == 200
        return IMAGE
    start = int(first) if first else max(0, len(IMAGE) - int(last))
    if start >= len(IMAGE):
        assert answer.status == 416
        return answer.body
    end = min(int(last) + 1, len(IMAGE)) if first and last else len(IMAGE)
    told = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", answer.headers["content-range"])
    assert told is not None
    assert [int(n) for n in told.groups()] == [start, end - 1, len(IMAGE)]
    return IMAGE[start:end]
