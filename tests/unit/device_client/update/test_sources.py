"""Metadata from a web server."""

import asyncio
import threading
from pathlib import Path

import pytest

from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.repository import Repository
from device_client.update.sources import WebSource
from device_client.update.store import MetadataStore
from tests.support.hostile_http import Asked, Talk, hostile
from tests.support.update_repository import NOW, MadeRepository
from tests.support.update_workshop import served
from tests.support.waiting import eventually


async def test_a_whole_refresh(tmp_path: Path) -> None:
    made = MadeRepository()
    site = tmp_path / "site"
    lay_out(site, made)
    with served(site) as base:
        source = WebSource(f"{base}/", "")
        store = MetadataStore(tmp_path / "metadata", made.first_root)
        trusted = await Repository(store, source).refresh(NOW)
        assert trusted.snapshot is not None
        assert await source.fetch("no.json", 100) is None
        data = await source.fetch("timestamp.json", 10)
        assert data is not None
        assert len(data) == 11, "no more is read than shows that it's too long"


def lay_out(site: Path, made: MadeRepository) -> None:
    site.mkdir()
    for name, data in made.files.items():
        (site / name).write_bytes(data)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "file:///etc", "ftp://localhost/"])
async def test_nowhere(url: str) -> None:
    with pytest.raises(UpdateRefused) as caught:
        await WebSource(url, "").fetch("passwd", 100)
    assert caught.value.why is UpdateCode.METADATA_MISSING


async def test_a_server_that_dribbles_keeps_no_thread() -> None:
    """As many as the pool has, and the device couldn't write to its disk any more."""

    async def dribble(_: Asked, talk: Talk) -> None:
        await talk.head(200, Content_Length=100_000)
        while True:
            await talk.body(b"{")
            await asyncio.sleep(0.01)

    before = {thread for thread in threading.enumerate() if thread.is_alive()}
    async with hostile(dribble) as server:
        base = server.url.rpartition("/")[0]
        for _ in range(2):
            with pytest.raises(UpdateRefused) as caught:
                await WebSource(base, "", timeout_s=0.5).fetch("timestamp.json", 50_000)
            assert caught.value.why is UpdateCode.METADATA_MISSING
        assert len(server.asked) == 2
        await eventually(lambda: server.open == 0)
    assert len(set(threading.enumerate()) - before) <= 2


async def test_a_server_that_speaks_no_http_is_a_refusal() -> None:
    async def broken(_: Asked, talk: Talk) -> None:
        talk._writer.write(b"no HTTP\r\n\r\n")
        await talk._writer.drain()

    async with hostile(broken) as server:
        base = server.url.rpartition("/")[0]
        with pytest.raises(UpdateRefused) as caught:
            await WebSource(base, "", timeout_s=60).fetch("timestamp.json", 100)
    assert caught.value.why is UpdateCode.METADATA_MISSING


async def test_an_address_with_a_password_is_shown_to_nobody() -> None:
    with pytest.raises(UpdateRefused) as caught:
        await WebSource("https://ann:secret@example.invalid/x?token=secret", "").fetch("a", 100)
    assert "secret" not in str(caught.value)
