"""What is published: one state of the repository, read whole."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from broker.adapters.ca.files import read_file
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.metadata import damaged, parse_metadata
from broker.adapters.updates.roles import Roles
from broker.ports.updates import UpdateCode, UpdateError

TIMESTAMP_FILE: Final = "timestamp.json"
_TRIES: Final = 3


@dataclass(frozen=True)
class Published:
    """All that a client needs; `files` by name, as it is served."""

    name: str
    """The state's own name: another one has other content."""
    files: Mapping[str, bytes]
    root: Metadata[Root]
    timestamp: Metadata[Timestamp]
    snapshot: Metadata[Snapshot]
    targets: Metadata[Targets]
    models: Mapping[str, Metadata[Targets]]

    @property
    def roles(self) -> Roles:
        return Roles(self.root, self.targets, self.models)


def state_in_force(folders: UpdateFolders) -> str | None:
    """The name of the state that is served; none before the first was published.

    Raises:
        UpdateError: REPOSITORY_DAMAGED, also when there are states and none is in force.
    """
    try:
        return str(folders.metadata.readlink())
    except FileNotFoundError:
        _check_never_published(folders)
        return None
    except OSError as error:
        raise damaged(f"{folders.metadata} isn't the symbolic link it was made as") from error


def _check_never_published(folders: UpdateFolders) -> None:
    # The first publication has a state before there is a link; its root is in the staging then.
    states = sorted(
        folders.repository.glob("metadata.[0-9]*"), key=lambda path: path.stat().st_mtime
    )
    staged = (folders.staged_metadata / "root.json").exists()
    # Looked at last: it may have been published, and the staging cleared, since the link was read.
    if states and not staged and not folders.metadata.is_symlink():
        raise UpdateError(
            UpdateCode.REPOSITORY_DAMAGED,
            f"the link {folders.metadata} is gone, so nothing is in force",
            f"make it again by 'ln -s {states[-1].name} {folders.metadata}', and see who may "
            "write there",
        )


def load_published(folders: UpdateFolders) -> Published | None:
    """The state that is served; none before the first was published.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
        AuthorityError: FILE_MISSING or FILE_UNREADABLE.
    """
    for _ in range(_TRIES):
        name = state_in_force(folders)
        if name is None:
            return None
        folder = folders.repository / name
        # The state before the one in force is kept, so only a reader who slept sees one go.
        if folder.is_dir():
            return load_state(folder)
    raise damaged(f"{folders.metadata} names a state that isn't there")


def load_state(folder: Path) -> Published:
    """One state by its folder."""
    files: dict[str, bytes] = {}

    def read(name: str) -> bytes:
        files[name] = read_file(folder / name)
        return files[name]

    version = 0
    while (folder / f"{version + 1}.root.json").exists():
        version += 1
        read(f"{version}.root.json")
    if version == 0:
        raise damaged(f"{folder} holds no root")
    root = parse_metadata(files[f"{version}.root.json"], Root, "root")
    timestamp = parse_metadata(read(TIMESTAMP_FILE), Timestamp, TIMESTAMP_FILE)
    name = f"{timestamp.signed.snapshot_meta.version}.snapshot.json"
    snapshot = parse_metadata(read(name), Snapshot, name)
    listed = {}
    for file_name, meta in snapshot.signed.meta.items():
        role = file_name.removesuffix(".json")
        name = f"{meta.version}.{file_name}"
        listed[role] = parse_metadata(read(name), Targets, name)
    if "targets" not in listed:
        raise damaged(f"{folder} holds no targets")
    targets = listed.pop("targets")
    return Published(folder.name, files, root, timestamp, snapshot, targets, listed)
