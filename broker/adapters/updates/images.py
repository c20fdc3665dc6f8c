"""The images' files: copied into the staging while they are hashed, then moved to be served."""

import hashlib
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from tuf.api.metadata import TargetFile

from broker.adapters.ca.files import sync_folder
from broker.adapters.updates.layout import UpdateFolders, consistent_name
from broker.ports.updates import UpdateCode, UpdateError

_CHUNK: Final = 1024 * 1024
_OPEN_FILE: Final = 0o644
_OPEN_FOLDER: Final = 0o755


@dataclass(frozen=True)
class Content:
    """What a file holds."""

    sha256: str
    length: int


def stage_image(folders: UpdateFolders, source: Path, path: str) -> Content:
    """Copies a file into the staging under its consistent name; durable on return.

    Raises:
        UpdateError: FILE_UNREADABLE.
        OSError: it can't be written; then nothing is left of it.
    """
    folders.staging.mkdir(exist_ok=True)
    folders.staged_targets.mkdir(exist_ok=True)
    draft = folders.staged_targets / f".{secrets.token_hex(8)}"
    try:
        with _readable(source) as original, draft.open("xb") as copy:
            content = _copy(original, copy)
            os.fchmod(copy.fileno(), _OPEN_FILE)
            copy.flush()
            os.fsync(copy.fileno())
        _move(draft, folders.staged_targets, consistent_name(path, content.sha256))
    finally:
        draft.unlink(missing_ok=True)
    return content


def publish_images(folders: UpdateFolders, targets: Iterable[TargetFile]) -> None:
    """Puts the file of every target where it's served from, after hashing what was staged once
    more; durable on return. What is there already stays.

    Raises:
        UpdateError: IMAGE_INVALID when a file is missing or was changed.
    """
    for target in targets:
        name = consistent_name(target.path, target.hashes["sha256"])
        if has_length(folders.targets / name, target.length):
            continue
        staged = folders.staged_targets / name
        wanted = Content(target.hashes["sha256"], target.length)
        if not staged.exists() or measure(staged) != wanted:
            raise UpdateError(
                UpdateCode.IMAGE_INVALID,
                f"{staged} is missing, or isn't what was added",
                "run 'muster update discard', and add the image again",
            )
        _move(staged, folders.targets, name)


def forget_images(folders: UpdateFolders, keep: Iterable[TargetFile]) -> None:
    """Removes the files of targets that aren't published any more."""
    wanted = {folders.targets / consistent_name(t.path, t.hashes["sha256"]) for t in keep}
    for path in sorted(folders.targets.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in wanted:
            path.unlink()


def measure(path: Path) -> Content:
    """What a file holds.

    Raises:
        UpdateError: FILE_UNREADABLE.
    """
    with _readable(path) as file:
        return _copy(file, None)


def _readable(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UpdateError(
            UpdateCode.FILE_UNREADABLE,
            f"'{path}' can't be read: {error.strerror}",
            "check its name and who may read it",
        ) from error


def _copy(source: BinaryIO, into: BinaryIO | None) -> Content:
    digest, length = hashlib.sha256(), 0
    for chunk in _chunks(source):
        digest.update(chunk)
        length += len(chunk)
        if into is not None:
            into.write(chunk)
    return Content(digest.hexdigest(), length)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK):
        yield chunk


def _move(source: Path, folder: Path, name: str) -> None:
    """Moves a file below `folder`, making the folders on its way; durable on return."""
    place = folder
    for part in Path(name).parts[:-1]:
        above, place = place, place / part
        if not place.is_dir():
            place.mkdir()
            place.chmod(_OPEN_FOLDER)
            sync_folder(above)
    source.replace(folder / name)
    sync_folder(place)


def has_length(path: Path, length: int) -> bool:
    """Whether a published image's file is there: it came whole, under the name of its hash."""
    try:
        return path.stat().st_size == length
    except OSError:
        return False
