"""Where an image's bytes go: a file, hashed as it grows, and hashed again from storage."""

import asyncio
import hashlib
import os
from pathlib import Path
from typing import Final

from broker.protocol.updates import AssignedTarget
from device_client import durable
from device_client.finishing import to_its_end
from device_client.update.codes import UpdateCode, UpdateRefused

_PART: Final = 1 << 18


class FileSink:
    """The download of one target, which goes on where an earlier one stopped.

    The file is only ever appended to, or removed and begun anew: an inode that was verified once
    isn't written again.
    """

    def __init__(self, path: Path, target: AssignedTarget) -> None:
        """Only `opened` makes one."""
        self._path = path
        self._target = target
        self._hash = hashlib.sha256()
        self._position = 0
        self._resumed = False

    @property
    def position(self) -> int:
        """How many bytes there are."""
        return self._position

    async def write(self, data: bytes) -> None:
        """Appends.

        Raises:
            UpdateRefused: IMAGE_TOO_LONG.
            OSError: the disk is full, or can't be written.
        """
        if self._position + len(data) > self._target.length:
            raise UpdateRefused(
                UpdateCode.IMAGE_TOO_LONG,
                f"{self._target.path} goes on after its {self._target.length} bytes.",
            )
        await to_its_end(asyncio.to_thread(_append, self._path, data))
        self._hash.update(data)
        self._position += len(data)

    async def restart(self) -> None:
        """Begins anew."""
        await to_its_end(asyncio.to_thread(durable.remove, self._path))
        self._hash = hashlib.sha256()
        self._position = 0
        self._resumed = False

    async def finish(self) -> None:
        """Returns when the whole image is on the disk, as what was read back from there says.

        What isn't the image is removed.

        Raises:
            UpdateRefused: IMAGE_WRONG, IMAGE_CHANGED if a part of it is from an earlier fetch, or
                IMAGE_TAMPERED.
        """
        whole = self._position == self._target.length
        if not whole or self._hash.hexdigest() != self._target.sha256:
            await to_its_end(asyncio.to_thread(durable.remove, self._path))
            if self._resumed:
                raise UpdateRefused(
                    UpdateCode.IMAGE_CHANGED, f"{self._target.path} changed while it was fetched."
                )
            raise UpdateRefused(
                UpdateCode.IMAGE_WRONG, f"What came isn't the {self._target.path} that was signed."
            )
        await to_its_end(asyncio.to_thread(_sync, self._path))
        await verify(self._path, self._target)

    async def _take_up(self) -> None:
        self._position = await to_its_end(asyncio.to_thread(_hash_into, self._hash, self._path))
        self._resumed = self._position > 0
        if self._position > self._target.length:
            await self.restart()


async def opened(path: Path, target: AssignedTarget) -> FileSink:
    """The sink, with what is in the file already."""
    sink = FileSink(path, target)
    await sink._take_up()
    return sink


async def verify(path: Path, target: AssignedTarget) -> None:
    """Returns when the file in storage is the signed image; removes it otherwise.

    Raises:
        UpdateRefused: IMAGE_TAMPERED.
    """
    found = hashlib.sha256()
    length = await to_its_end(asyncio.to_thread(_hash_into, found, path))
    if (length, found.hexdigest()) != (target.length, target.sha256):
        await to_its_end(asyncio.to_thread(durable.remove, path))
        raise UpdateRefused(
            UpdateCode.IMAGE_TAMPERED, f"{target.path} isn't in storage as it was written."
        )


def _append(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    durable.sync_directory(path.parent)


def _hash_into(found: "hashlib._Hash", path: Path) -> int:
    """How many bytes the file has, as storage and not the page cache holds it; 0 without one."""
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return 0
    length = 0
    with file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while part := file.read(_PART):
            found.update(part)
            length += len(part)
    return length
