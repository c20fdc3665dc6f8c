"""Root: the first one, and those that follow it."""

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from securesystemslib.signer import Key
from tuf.api.metadata import Metadata, Role, Root, Targets

from broker.adapters.ca.files import sync_folder
from broker.adapters.updates.drafts import Drafting, redelegate
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.lifetimes import write_lifetimes
from broker.adapters.updates.online import (
    DIRECTOR,
    ONLINE_ROLES,
    director_of,
    new_online_key,
)
from broker.adapters.updates.roles import Roles, save_roles
from broker.core.metadata_lifetime import Lifetimes
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol.updates import DIRECTOR_FIELD

_CLOSED: Final = 0o700
_OPEN: Final = 0o755


@dataclass(frozen=True)
class KeySet:
    """Who signs a role, and how many of them have to."""

    keys: Sequence[Key]
    threshold: int

    def checked(self, role: str) -> "KeySet":
        """The same, when the threshold can be met.

        Raises:
            UpdateError: THRESHOLD_INVALID.
        """
        if not 1 <= self.threshold <= len(self.keys):
            raise UpdateError(
                UpdateCode.THRESHOLD_INVALID,
                f"{role} would need {self.threshold} of {len(self.keys)} keys",
                "name more keys, or a threshold from 1 to their number",
            )
        return self


@dataclass(frozen=True)
class RootChange:
    """What the next root does otherwise. Key ids may be shortened."""

    add_root: Sequence[Key] = ()
    remove_root: Sequence[str] = ()
    root_threshold: int | None = None
    add_targets: Sequence[Key] = ()
    remove_targets: Sequence[str] = ()
    targets_threshold: int | None = None
    new_online: Sequence[str] = ()
    """Of `ONLINE_ROLES`: each gets a new key in the place of its old one."""

    @property
    def changes_targets(self) -> bool:
        return bool(self.add_targets or self.remove_targets or self.targets_threshold)


def create_repository(
    folders: UpdateFolders,
    root: KeySet,
    targets: KeySet,
    lifetimes: Lifetimes,
    algorithm: str,
    passphrase: bytes | None,
    now: datetime,
) -> None:
    """Makes the folder with new online keys, and root and targets staged, not signed yet; or
    nothing.

    Raises:
        UpdateError: REPOSITORY_EXISTS, THRESHOLD_INVALID.
        AuthorityError, OSError: it can't be written.
    """
    root.checked("root")
    targets.checked("targets")
    refuse_existing(folders)
    draft = UpdateFolders(folders.path.with_name(f".updates.{secrets.token_hex(8)}"))
    try:
        _make_folders(draft)
        online = {
            role: new_online_key(draft, role, algorithm, passphrase).public_key
            for role in ONLINE_ROLES
        }
        first = _first_root(root, targets, online, now + lifetimes.root)
        top = Targets(1, None, now + lifetimes.targets)
        write_lifetimes(draft, lifetimes)
        save_roles(draft.staged_metadata, Roles(Metadata(first), Metadata(top)))
        draft.path.rename(folders.path)
        sync_folder(folders.path.parent)
    finally:
        shutil.rmtree(draft.path, ignore_errors=True)


def refuse_existing(folders: UpdateFolders) -> None:
    """Returns when there is no repository.

    Raises:
        UpdateError: REPOSITORY_EXISTS.
    """
    if folders.path.exists():
        raise UpdateError(
            UpdateCode.REPOSITORY_EXISTS,
            f"{folders.path} exists",
            "go on with 'muster update status'; a repository that devices know can't be remade",
        )


def rotate_root(
    drafting: Drafting,
    folders: UpdateFolders,
    change: RootChange,
    algorithm: str,
    passphrase: bytes | None,
) -> Roles:
    """The staged roles with the next root, and with targets and all models' roles when their keys
    change. New online keys are in the home on return; the old ones stay until it's published.

    Raises:
        UpdateError: KEY_MISSING when a key to remove isn't there, THRESHOLD_INVALID.
    """
    draft = drafting.root()
    root = draft.signed
    _change_role(root, "root", change.add_root, change.remove_root, change.root_threshold)
    _change_role(
        root, "targets", change.add_targets, change.remove_targets, change.targets_threshold
    )
    for role in dict.fromkeys(change.new_online):
        _replace_online(root, role, new_online_key(folders, role, algorithm, passphrase).public_key)
    _drop_unused_keys(root)
    staged = replace(drafting.staged, root=draft)
    if not change.changes_targets:
        return staged
    return replace(redelegate(drafting, root), root=draft)


def _make_folders(folders: UpdateFolders) -> None:
    # A web server may be let into repository/, so nobody else is let into its siblings.
    for folder in (folders.path, folders.repository, folders.targets):
        folder.mkdir()
        folder.chmod(_OPEN)
    for folder in (folders.keys, folders.staging):
        folder.mkdir()
        folder.chmod(_CLOSED)
    folders.lock.touch(mode=0o600)
    sync_folder(folders.repository)


def _first_root(
    root: KeySet, targets: KeySet, online: Mapping[str, Key], expires: datetime
) -> Root:
    sets = {"root": root, "targets": targets}
    sets |= {role: KeySet([key], 1) for role, key in online.items()}
    keys = {key.keyid: key for each in sets.values() for key in each.keys}
    director = sets.pop(DIRECTOR)
    roles = {
        role: Role([key.keyid for key in each.keys], each.threshold) for role, each in sets.items()
    }
    field = _director_field([key.keyid for key in director.keys])
    return Root(
        version=1,
        expires=expires,
        keys=keys,
        roles=roles,
        consistent_snapshot=True,
        unrecognized_fields={DIRECTOR_FIELD: field},
    )


def _director_field(keyids: Sequence[str]) -> dict[str, object]:
    return {"keyids": list(keyids), "threshold": 1}


def _change_role(
    root: Root, role: str, add: Sequence[Key], remove: Sequence[str], threshold: int | None
) -> None:
    found = root.roles[role]
    for short in remove:
        found.keyids.remove(_the_key(found.keyids, role, short))
    for key in add:
        if key.keyid not in found.keyids:
            found.keyids.append(key.keyid)
        root.keys[key.keyid] = key
    if threshold is not None:
        found.threshold = threshold
    KeySet([root.keys[keyid] for keyid in found.keyids], found.threshold).checked(role)


def _the_key(keyids: Sequence[str], role: str, short: str) -> str:
    matching = [keyid for keyid in keyids if short and keyid.startswith(short)]
    if len(matching) != 1:
        raise UpdateError(
            UpdateCode.KEY_MISSING,
            f"{short!r} names {len(matching)} of the {role} keys",
            "see 'muster update status --json' for the key ids",
        )
    return matching[0]


def _replace_online(root: Root, role: str, key: Key) -> None:
    root.keys[key.keyid] = key
    if role == DIRECTOR:
        root.unrecognized_fields[DIRECTOR_FIELD] = _director_field([key.keyid])
    else:
        root.roles[role] = Role([key.keyid], 1)


def _drop_unused_keys(root: Root) -> None:
    directors, _ = director_of(root)
    used = {*directors, *(keyid for role in root.roles.values() for keyid in role.keyids)}
    root.keys = {keyid: key for keyid, key in root.keys.items() if keyid in used}
