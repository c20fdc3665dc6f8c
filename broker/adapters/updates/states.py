"""Putting a new state of the metadata in force.

Rotating keys changes root and timestamp together, so no order of single files is right for every
client. Each state is a folder of its own, written whole and made durable; then a symbolic link is
switched, which is one step for every reader and for a process that is killed.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from broker.adapters.ca.files import sync_folder, write_public
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.published import state_in_force

_PREFIX: Final = "metadata."
_OPEN: Final = 0o755


def prepare(folders: UpdateFolders, name: str, files: Mapping[str, bytes]) -> Path:
    """Writes a state beside the one in force, which stays in force; durable on return.

    Call it with the lock held. What a killed process left behind under the name is replaced.
    """
    in_force = state_in_force(folders)
    folder = folders.repository / name
    if name == in_force:
        raise FileExistsError(f"{folder} is in force")
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    folder.chmod(_OPEN)
    before = None if in_force is None else folders.repository / in_force
    for file_name, content in files.items():
        if before is None or not _link(before / file_name, folder / file_name, content):
            write_public(folder / file_name, content)
    sync_folder(folder)
    sync_folder(folders.repository)
    return folder


def switch(folders: UpdateFolders, folder: Path) -> None:
    """Puts a prepared state in force, in one step; durable on return."""
    draft = folders.repository / "metadata.next"
    draft.unlink(missing_ok=True)
    draft.symlink_to(folder.name)
    draft.replace(folders.metadata)
    sync_folder(folders.repository)


def state_name(timestamp_version: int) -> str:
    """The name of the state with that timestamp."""
    return f"{_PREFIX}{timestamp_version}"


def forget_states(folders: UpdateFolders, timestamp_version: int) -> None:
    """Removes every state, half-written ones too, but the one in force, which has that timestamp,
    and the one before it, which a client may be in the middle of reading."""
    keep = {state_name(timestamp_version), state_name(timestamp_version - 1)}
    for folder in folders.repository.glob(f"{_PREFIX}*"):
        if folder.is_dir() and not folder.is_symlink() and folder.name not in keep:
            shutil.rmtree(folder)


def _link(old: Path, new: Path, content: bytes) -> bool:
    """Gives the same file a second name when it holds `content`; whether it did."""
    try:
        if old.read_bytes() != content:
            return False
        os.link(old, new)
    except OSError:
        return False  # a file system without hard links
    return True
