"""The lifetimes that were chosen when the repository was made, as a file."""

from datetime import timedelta

import msgspec

from broker.adapters.ca.files import read_file, replace_public
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.metadata import damaged
from broker.core.metadata_lifetime import Lifetimes


def read_lifetimes(folders: UpdateFolders) -> Lifetimes:
    """As they were written.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
        AuthorityError: FILE_MISSING or FILE_UNREADABLE.
    """
    try:
        seconds = msgspec.json.decode(read_file(folders.lifetimes), type=dict[str, int])
        return Lifetimes(**{role: timedelta(seconds=value) for role, value in seconds.items()})
    except (msgspec.DecodeError, TypeError) as error:
        raise damaged(f"{folders.lifetimes} can't be read: {error}") from error


def write_lifetimes(folders: UpdateFolders, lifetimes: Lifetimes) -> None:
    """Whole seconds by role.

    Raises:
        AuthorityError: FILE_UNWRITABLE.
    """
    roles = ("root", "targets", "snapshot", "timestamp")
    seconds = {role: int(getattr(lifetimes, role).total_seconds()) for role in roles}
    replace_public(folders.lifetimes, msgspec.json.encode(seconds) + b"\n")
