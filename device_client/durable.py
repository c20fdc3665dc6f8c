"""Files that survive a power cut: whole or not at all, and private from their first byte.

The order is always write, sync the file, rename, sync the directory: a name never points at
content that isn't on the disk yet. What a cut leaves behind has a name that begins with a dot.
"""

import os
from pathlib import Path
from typing import Final

_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def make_directory(path: Path) -> None:
    """The directory, 0700 where it's made by this call, and its name on the disk."""
    if path.is_dir():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkdir(path, 0o700)  # noqa: PTH102 - the tests cut the power at os calls
    sync_directory(path.parent)


def create_file(path: Path, content: bytes) -> None:
    """A new file, 0600, whose content is on the disk; its name is once the directory is synced."""
    descriptor = os.open(path, _NEW_FILE, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, content: bytes) -> None:
    """The file with this content, on the disk; after a cut it holds the old or the new one."""
    temporary = _temporary(path)
    remove(temporary)
    create_file(temporary, content)
    os.replace(temporary, path)  # noqa: PTH105
    sync_directory(path.parent)


def replace_link(path: Path, target: str) -> None:
    """The symbolic link, on the disk; after a cut it points at the old or the new target."""
    temporary = _temporary(path)
    remove(temporary)
    os.symlink(target, temporary)  # noqa: PTH211
    os.replace(temporary, path)  # noqa: PTH105
    sync_directory(path.parent)


def move(source: Path, target: Path) -> None:
    """The new name of a file or directory, on the disk; both are in one directory."""
    os.rename(source, target)  # noqa: PTH104
    sync_directory(target.parent)


def remove(path: Path) -> None:
    """No such file, link or directory; a cut may undo it."""
    if path.is_dir() and not path.is_symlink():
        for child in path.iterdir():
            remove(child)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def remove_leftovers(directory: Path) -> None:
    """Nothing of what a cut left behind in `directory`."""
    for path in directory.glob(".*.new"):
        remove(path)


def temporary_directory(path: Path) -> Path:
    """An empty directory, 0700, to be filled and then moved to `path`."""
    temporary = _temporary(path)
    remove(temporary)
    os.mkdir(temporary, 0o700)  # noqa: PTH102
    return temporary


def sync_directory(path: Path) -> None:
    """The names in the directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")
