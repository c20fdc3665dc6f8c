"""Metadata from a web server."""

from pathlib import Path

import pytest

from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.repository import Repository
from device_client.update.sources import WebSource
from device_client.update.store import MetadataStore
from tests.support.update_repository import NOW, MadeRepository
from tests.support.update_workshop import served


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
