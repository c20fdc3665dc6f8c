"""Directory slots: each image in a folder of its own, and a link that names the one in use.

    current  -> slots/<sha256>    what runs; services start from here
    previous -> slots/<sha256>    what ran before, during a trial
    slots/<sha256>/image          a plain file as it came, or
    slots/<sha256>/tree/…         what a .tar or .tar.gz held
    slots/incoming/<sha256>       what is being downloaded

The switch is one rename. A slot is never changed once it's named.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from device_client import durable
from device_client.finishing import to_its_end
from device_client.update.images import Image
from device_client.update.installers.port import MARGIN, InstallFailed, free_bytes

if TYPE_CHECKING:
    from tarfile import TarFile, TarInfo

_ARCHIVES: Final = (".tar", ".tar.gz", ".tgz")
_MAX_MEMBERS: Final = 100_000


class DirectorySlots:
    """Slots below one directory; the default."""

    def __init__(self, directory: Path, most_unpacked: int = 1 << 32) -> None:
        """`most_unpacked` is how many bytes an archive may grow to."""
        self._directory = directory
        self._slots = directory / "slots"
        self._incoming = self._slots / "incoming"
        self._current = directory / "current"
        self._previous = directory / "previous"
        self._most_unpacked = most_unpacked

    async def staging(self, image: Image) -> Path:
        """As `Installer` says; slots that nothing points at make room."""
        return await to_its_end(asyncio.to_thread(self._staging, image))

    async def room(self) -> int:
        """As `Installer` says."""
        return free_bytes(self._directory)

    async def install(self, image: Image, file: Path) -> None:
        """As `Installer` says; a plain file is moved, an archive unpacked by the `data` filter."""
        await to_its_end(asyncio.to_thread(self._install, image, file))

    async def switch(self, image: Image) -> None:
        """As `Installer` says."""
        await to_its_end(asyncio.to_thread(self._switch, image))

    async def runs(self, image: Image) -> bool:
        """As `Installer` says."""
        return _target(self._current) == _slot(image)

    async def commit(self, image: Image) -> None:
        """As `Installer` says; what ran before stays until the next image needs the room."""
        await to_its_end(asyncio.to_thread(durable.remove, self._incoming))

    async def roll_back(self, image: Image) -> None:
        """As `Installer` says; without anything before, nothing is selected."""
        await to_its_end(asyncio.to_thread(self._roll_back, image))

    def _staging(self, image: Image) -> Path:
        for directory in (self._directory, self._slots, self._incoming):
            _make(directory)
        durable.remove_leftovers(self._directory)
        durable.remove_leftovers(self._slots)
        if _target(self._current) != _slot(image):
            self._make_room()
        for file in self._incoming.iterdir():
            if file.name != _name(image):
                durable.remove(file)
        return self._incoming / _name(image)

    def _make_room(self) -> None:
        """Nothing but what runs. Not so while the image itself is selected, as it may be where the
        journal was lost during a trial: then what ran before is still needed."""
        durable.remove(self._previous)
        running = self._current.resolve()
        for slot in self._slots.iterdir():
            if slot != self._incoming and not running.is_relative_to(slot.resolve()):
                durable.remove(slot)

    def _install(self, image: Image, file: Path) -> None:
        slot = self._slots / _name(image)
        if _target(self._current) == _slot(image):
            return
        durable.remove(slot)
        filling = durable.temporary_directory(slot)
        try:
            self._fill(filling, image, file)
        except BaseException:
            # A disk that it has filled must take the journal again, or there's no way back.
            durable.remove(filling)
            raise
        durable.move(filling, slot)

    def _fill(self, filling: Path, image: Image, file: Path) -> None:
        if image.target.path.endswith(_ARCHIVES):
            self._unpack(file, filling / "tree")
        else:
            # The very bytes that were verified, without a second copy of them.
            os.link(file, filling / "image")
        filling.chmod(0o755)
        _sync_tree(filling)

    def _unpack(self, file: Path, tree: Path) -> None:
        import tarfile  # brings three decompressors with it
        import zlib

        tree.mkdir(mode=0o755)
        try:
            with tarfile.open(file) as archive:
                archive.extractall(tree, self._members(archive), filter="data")
        except (tarfile.TarError, EOFError, ValueError, zlib.error) as error:
            raise InstallFailed(f"The archive can't be unpacked: {error}") from error

    def _members(self, archive: "TarFile") -> "Iterator[TarInfo]":
        """The archive's members, until they become too many or too large."""
        size, most = 0, min(self._most_unpacked, free_bytes(self._directory) - MARGIN)
        for number, member in enumerate(archive):
            size += member.size
            if number >= _MAX_MEMBERS or size > most:
                raise InstallFailed("The archive grows to more than is allowed.")
            yield member

    def _switch(self, image: Image) -> None:
        now = _target(self._current)
        if now == _slot(image):
            return
        if now is None:
            durable.remove(self._previous)
        else:
            durable.replace_link(self._previous, now)
        durable.replace_link(self._current, _slot(image))

    def _roll_back(self, image: Image) -> None:
        if _target(self._current) != _slot(image):
            return
        before = _target(self._previous)
        if before is None:
            durable.remove(self._current)
            durable.sync_directory(self._directory)
        else:
            durable.replace_link(self._current, before)
        durable.remove(self._incoming)


def _name(image: Image) -> str:
    return image.target.sha256


def _slot(image: Image) -> str:
    return f"slots/{_name(image)}"


def _target(link: Path) -> str | None:
    """What the link says. What came from the factory may be anywhere, so all of it is kept."""
    try:
        return str(link.readlink())
    except OSError:
        return None


def _make(directory: Path) -> None:
    """Services of other users start from here."""
    if not directory.is_dir():
        directory.parent.mkdir(parents=True, exist_ok=True)
        os.mkdir(directory, 0o755)  # noqa: PTH102 - the tests cut the power at os calls
        durable.sync_directory(directory.parent)


def _sync_tree(root: Path) -> None:
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(folder) / name
            if not path.is_symlink():
                _sync_file(path)
        durable.sync_directory(Path(folder))


def _sync_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
