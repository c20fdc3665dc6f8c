"""Writing files so that they are whole, durable, and never for an instant more open than meant."""

import os
import secrets
from pathlib import Path
from typing import Final

from broker.adapters.ca.errors import AuthorityCode, AuthorityError

MAX_FILE: Final = 64 * 1024 * 1024
"""Bytes; a CRL of a million entries fits."""


def write_secret(path: Path, content: bytes) -> None:
    """Writes a new file that only its owner may read, from its first instant; durable on return.

    Raises:
        AuthorityError: FILE_EXISTS, FILE_UNWRITABLE.
    """
    _write_new(path, content, 0o600)


def write_public(path: Path, content: bytes) -> None:
    """Writes a new file that everybody may read, whatever the umask; durable on return.

    Raises:
        AuthorityError: FILE_EXISTS, FILE_UNWRITABLE.
    """
    _write_new(path, content, 0o644)


def read_file(path: Path) -> bytes:
    """The whole file, at most `MAX_FILE` bytes.

    Raises:
        AuthorityError: FILE_MISSING, FILE_UNREADABLE, FILE_MALFORMED when it is too large.
    """
    content, _ = read_with_mode(path)
    return content


def read_with_mode(path: Path) -> tuple[bytes, int]:
    """The whole file and its permission bits, both of the same open file."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError as error:
        raise AuthorityError(
            AuthorityCode.FILE_MISSING,
            f"'{path}' doesn't exist",
            "restore it from your backup, or check that the Muster home is the right one",
        ) from error
    except OSError as error:
        raise AuthorityError(
            AuthorityCode.FILE_UNREADABLE,
            f"'{path}' can't be read: {error.strerror}",
            _unreadable_remedy(error),
        ) from error
    if len(content) > MAX_FILE:
        raise AuthorityError(
            AuthorityCode.FILE_MALFORMED, f"'{path}' is too large", "restore it from your backup"
        )
    return content, mode


def _unreadable_remedy(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "run as the user that may read it: for a Muster home's files, its owner"
    if isinstance(error, IsADirectoryError):
        return "name the file itself, not its folder"
    return "see that its disk or medium is in order; else restore it from your backup"


def sync_folder(path: Path) -> None:
    """Makes the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_public(path: Path, content: bytes) -> None:
    """Puts `content` in the place of a file that everybody may read: readers see the old or the
    new, never a part; durable on return.

    Raises:
        AuthorityError: FILE_UNWRITABLE.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    write_public(draft, content)
    try:
        draft.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except FileExistsError as error:
        raise AuthorityError(
            AuthorityCode.FILE_EXISTS,
            f"'{path}' exists already",
            "move it away first, or choose another name",
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        sync_folder(path.parent)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> AuthorityError:
    return AuthorityError(
        AuthorityCode.FILE_UNWRITABLE,
        f"'{path}' can't be written: {error.strerror}",
        "see that the folder exists, that you may write to it, and that the disk has room",
    )
