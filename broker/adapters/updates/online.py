"""The keys that lie in the home, and what they sign: snapshot, timestamp and assignments.

Each file is named by its key, so a new key can be there before the root that lists it is in force.
"""

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

from securesystemslib.signer import CryptoSigner, SSlibKey
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.adapters.ca.key_files import write_key
from broker.adapters.updates.failures import translated
from broker.adapters.updates.keys import generate, open_file
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.metadata import damaged
from broker.adapters.updates.published import Published
from broker.core.metadata_lifetime import Lifetimes
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol.updates import DIRECTOR_FIELD

DIRECTOR: Final = "director"
ONLINE_ROLES: Final = ("snapshot", "timestamp", DIRECTOR)
_SHORT: Final = 16


def new_online_key(
    folders: UpdateFolders, role: str, algorithm: str, passphrase: bytes | None
) -> CryptoSigner:
    """Makes a key and writes it into the home."""
    key = generate(algorithm)
    signer = CryptoSigner(key, SSlibKey.from_crypto(key.public_key()))
    write_key(folders.keys / _file_name(role, signer.public_key.keyid), key, passphrase)
    return signer


def online_signers(
    folders: UpdateFolders, role: str, keyids: Iterable[str], passphrase: bytes | None
) -> list[CryptoSigner]:
    """The keys of a role that lie in the home.

    Raises:
        UpdateError: KEY_MISSING when none of them does.
        AuthorityError: one can't be read.
    """
    paths = [folders.keys / _file_name(role, keyid) for keyid in keyids]
    signers = [_open(path, passphrase) for path in paths if path.exists()]
    if not signers:
        raise UpdateError(
            UpdateCode.KEY_MISSING,
            f"the {role} key isn't in {folders.keys}",
            f"restore it from your backup, or run 'muster update rotate-root --new-online {role}'",
        )
    return signers


def why_unusable(
    folders: UpdateFolders, role: str, keyids: Iterable[str], passphrase: bytes | None
) -> UpdateError | None:
    """Why nothing can be signed for an online role; None when it can be, as far as can be told
    without a passphrase."""
    try:
        with translated():
            online_signers(folders, role, keyids, passphrase)
    except UpdateError as error:
        cause = error.__cause__
        if isinstance(cause, AuthorityError) and cause.code is AuthorityCode.PASSPHRASE_MISSING:
            return None
        return error
    return None


def forget_keys(folders: UpdateFolders, keep: Collection[str]) -> None:
    """Removes the keys that no root lists any more."""
    wanted = {keyid[:_SHORT] for keyid in keep}
    for path in folders.keys.glob("*.key"):
        if path.stem.rpartition("-")[2] not in wanted:
            path.unlink()


def director_of(root: Root) -> tuple[list[str], int]:
    """The director's key ids and their threshold.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
    """
    try:
        field = root.unrecognized_fields[DIRECTOR_FIELD]
        return list(field["keyids"]), int(field["threshold"])
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(f"root {root.version} names no director") from error


def make_snapshot(
    old: Published | None,
    roles: Mapping[str, Metadata[Targets]],
    lifetimes: Lifetimes,
    now: datetime,
) -> Metadata[Snapshot]:
    """The next snapshot, not signed."""
    version = 1 if old is None else old.snapshot.signed.version + 1
    meta = {f"{role}.json": MetaFile(found.signed.version) for role, found in roles.items()}
    return Metadata(Snapshot(version, None, now + lifetimes.snapshot, meta))


def make_timestamp(
    old: Published | None, snapshot: Metadata[Snapshot], lifetimes: Lifetimes, now: datetime
) -> Metadata[Timestamp]:
    """The next timestamp, not signed."""
    version = 1 if old is None else old.timestamp.signed.version + 1
    meta = MetaFile(snapshot.signed.version)
    return Metadata(Timestamp(version, None, now + lifetimes.timestamp, meta))


def sign_online(
    metadata: Metadata[Snapshot] | Metadata[Timestamp],
    folders: UpdateFolders,
    root: Root,
    passphrase: bytes | None,
) -> None:
    """Signs with the role's keys.

    Raises:
        UpdateError: KEY_MISSING.
    """
    role = metadata.signed.type
    metadata.signatures.clear()
    for signer in online_signers(folders, role, root.roles[role].keyids, passphrase):
        metadata.sign(signer, append=True)


def _open(path: Path, passphrase: bytes | None) -> CryptoSigner:
    """The key, whether or not it was made when the home's passphrase was given."""
    try:
        return open_file(path, passphrase)
    except AuthorityError as error:
        if error.code is not AuthorityCode.PASSPHRASE_NEEDLESS:
            raise
        return open_file(path, None)


def _file_name(role: str, keyid: str) -> str:
    return f"{role}-{keyid[:_SHORT]}.key"
