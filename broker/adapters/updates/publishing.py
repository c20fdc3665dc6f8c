"""Putting staged metadata in force, and keeping what is in force fresh."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile

from broker.adapters.updates.images import forget_images, publish_images
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.metadata import encode_metadata
from broker.adapters.updates.online import (
    forget_keys,
    make_snapshot,
    make_timestamp,
    sign_online,
)
from broker.adapters.updates.published import TIMESTAMP_FILE, Published, load_state
from broker.adapters.updates.roles import Roles
from broker.adapters.updates.signatures import needs_of
from broker.adapters.updates.states import forget_states, prepare, state_name, switch
from broker.adapters.updates.verification import verify_state
from broker.core.metadata_lifetime import Lifetimes, is_due
from broker.ports.updates import UpdateCode, UpdateError


@dataclass(frozen=True)
class Publisher:
    """Whoever publishes, with the lock held."""

    folders: UpdateFolders
    lifetimes: Lifetimes
    passphrase: bytes | None
    now: datetime

    def publish(self, old: Published | None, staged: Roles) -> Published:
        """Puts the staged roles in force, all of them or none.

        The images come first, then a whole new state is written and read as a client would, and
        then switched to. Killed before the switch, nothing has changed; killed after it, the next
        command clears away what is left.

        Raises:
            UpdateError: SIGNATURES_MISSING, IMAGE_INVALID, KEY_MISSING, VERIFICATION_FAILED.
            AuthorityError, OSError: a file can't be read or written.
        """
        before = Roles() if old is None else old.roles
        after = before.followed_by(staged)
        check_signatures(before, staged)
        root = _check_whole(after, self.now)
        publish_images(self.folders, _targets(after))
        snapshot = make_snapshot(old, after.of_targets(), self.lifetimes, self.now)
        sign_online(snapshot, self.folders, root, self.passphrase)
        folder = self._prepare(old, root, staged, snapshot)
        new = load_state(folder)
        verify_state(folder, new)
        switch(self.folders, folder)
        clear_away(self.folders, new)
        return new

    def refresh(self, old: Published) -> bool:
        """Signs timestamp anew when it's due, and snapshot with it when that is; whether it did.

        A clock that went back makes nothing due, so it can't shorten what was signed before.

        Raises:
            UpdateError: KEY_MISSING.
            AuthorityError, OSError: a file can't be read or written.
        """
        if not needs_refresh(old, self.lifetimes, self.now):
            return False
        snapshot, root = old.snapshot, old.root.signed
        if is_due(snapshot.signed.expires, self.lifetimes.snapshot, self.now):
            snapshot = make_snapshot(old, old.roles.of_targets(), self.lifetimes, self.now)
            sign_online(snapshot, self.folders, root, self.passphrase)
        folder = self._prepare(old, root, Roles(), snapshot)
        switch(self.folders, folder)
        forget_states(self.folders, old.timestamp.signed.version + 1)
        return True

    def _prepare(
        self, old: Published | None, root: Root, staged: Roles, snapshot: Metadata[Snapshot]
    ) -> Path:
        timestamp = make_timestamp(old, snapshot, self.lifetimes, self.now)
        sign_online(timestamp, self.folders, root, self.passphrase)
        # What was in force stays readable for a client that is in the middle of reading it.
        files = {} if old is None else dict(old.files)
        for role, metadata in staged.named().items():
            files[f"{metadata.signed.version}.{role}.json"] = encode_metadata(metadata)
        files[f"{snapshot.signed.version}.snapshot.json"] = encode_metadata(snapshot)
        files[TIMESTAMP_FILE] = encode_metadata(timestamp)
        return prepare(self.folders, state_name(timestamp.signed.version), files)


def needs_refresh(state: Published, lifetimes: Lifetimes, now: datetime) -> bool:
    """Whether the timestamp or the snapshot is due."""
    snapshot, timestamp = state.snapshot.signed, state.timestamp.signed
    return is_due(snapshot.expires, lifetimes.snapshot, now) or is_due(
        timestamp.expires, lifetimes.timestamp, now
    )


def clear_away(folders: UpdateFolders, state: Published) -> None:
    """Removes what a publication leaves behind: older states, keys that no root lists, files that
    aren't targets any more; the staging last, because it shows that there is something to clear.
    Doing it again changes nothing."""
    forget_states(folders, state.timestamp.signed.version)
    forget_keys(folders, state.root.signed.keys)
    forget_images(folders, _targets(state.roles))
    if folders.staging.exists():
        shutil.rmtree(folders.staging)


def check_signatures(published: Roles, staged: Roles) -> None:
    """Returns when every staged role has the signatures that it needs.

    Raises:
        UpdateError: SIGNATURES_MISSING.
    """
    lacking = []
    for role in staged.named():
        needs = needs_of(role, published, staged)
        if not needs:
            lacking.append(f"{role}: nobody delegates to it")
        lacking += [
            f"{role}: {need.missing} more by the keys of {need.delegator}"
            for need in needs
            if need.missing
        ]
    if lacking:
        raise UpdateError(
            UpdateCode.SIGNATURES_MISSING,
            f"signatures are missing: {'; '.join(lacking)}",
            "have it signed by 'muster update sign --key FILE'; 'muster update status' names the "
            "keys",
        )


def _check_whole(after: Roles, now: datetime) -> Root:
    """The root, when roles that stay as they are fit the new ones, and none has expired."""
    check_signatures(Roles(root=after.root), Roles(None, after.targets, after.models))
    roles = after.named()
    expired = [role for role, found in roles.items() if found.signed.is_expired(now)]
    delegations = None if after.targets is None else after.targets.signed.delegations
    delegated = {} if delegations is None else delegations.roles or {}
    absent = [role for role in delegated if role not in roles]
    if after.root is None or after.targets is None or absent or expired:
        what = [f"{role} has expired" for role in expired]
        what += [f"{role} is missing" for role in absent]
        raise UpdateError(
            UpdateCode.VERIFICATION_FAILED,
            f"this can't be published: {'; '.join(what) or 'there is no root'}",
            "stage it again ('muster update renew', 'rotate-root' for root), and have it signed",
        )
    return after.root.signed


def _targets(roles: Roles) -> Iterator[TargetFile]:
    for metadata in roles.of_targets().values():
        yield from metadata.signed.targets.values()
