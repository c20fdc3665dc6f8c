"""Noticing that the registry was changed, and that its file isn't the one that was opened."""

import asyncio
import shutil
from pathlib import Path

import pytest

from broker.adapters.registry import SqlRegistry
from broker.adapters.registry.migrate import migrate
from broker.ports.registry import RegistryError


async def raise_n(registry: SqlRegistry) -> int:
    return await registry.write(lambda tx: tx.raise_counter("n"))


async def test_each_commit_changes_the_version_whoever_s_it_is(
    url: str, registry: SqlRegistry
) -> None:
    seen = [await asyncio.to_thread(registry.version)]
    await raise_n(registry)
    seen.append(await asyncio.to_thread(registry.version))
    async with SqlRegistry(url) as another:
        await raise_n(another)
        seen.append(await asyncio.to_thread(registry.version))
        await raise_n(another)
        seen.append(await asyncio.to_thread(registry.version))
    assert len(set(seen)) == len(seen)


async def test_reading_leaves_the_version(tmp_path: Path) -> None:
    """On SQLite; in PostgreSQL the other databases of a server count, too."""
    url = f"sqlite:///{tmp_path / 'registry.db'}"
    migrate(url)
    async with SqlRegistry(url) as registry:
        before = await asyncio.to_thread(registry.version)
        await registry.read(lambda tx: tx.counter("n"))
        assert await asyncio.to_thread(registry.version) == before


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "registry.db"
    migrate(f"sqlite:///{path}")
    return path


def moved(path: Path, to: Path) -> None:
    """No other file is in its way: nobody made one."""
    assert not to.exists()
    path.rename(to)


async def refused(registry: SqlRegistry) -> list[str]:
    """The code with which each way of using it is refused."""
    codes = []
    for use in (
        raise_n(registry),
        registry.read(lambda tx: tx.counter("n")),
    ):
        with pytest.raises(RegistryError) as error:
            await use
        assert error.value.remedy
        codes.append(error.value.code)
    return codes


async def test_a_file_that_was_removed_is_noticed_and_good_again_when_it_is_back(
    path: Path,
) -> None:
    away = path.with_suffix(".away")
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        assert await raise_n(registry) == 1
        moved(path, away)
        assert await refused(registry) == ["registry_replaced"] * 2
        moved(away, path)
        assert await raise_n(registry) == 2


async def test_a_file_in_the_place_of_the_other_is_noticed(path: Path) -> None:
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        await raise_n(registry)
        copy = path.with_suffix(".copy")
        shutil.copyfile(path, copy)
        copy.replace(path)
        assert await refused(registry) == ["registry_replaced"] * 2


async def test_a_file_that_is_gone_before_the_first_use_isn_t_made(path: Path) -> None:
    async with SqlRegistry(f"sqlite:///{path}") as registry:
        moved(path, path.with_suffix(".away"))
        assert await refused(registry) == ["registry_replaced"] * 2
        moved(path.with_suffix(".away"), path)
