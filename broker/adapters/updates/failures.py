"""Every failure below becomes an `UpdateError` at the repository's edge."""

from collections.abc import Iterator
from contextlib import contextmanager

from broker.adapters.ca.errors import AuthorityCode, AuthorityError
from broker.ports.updates import UpdateCode, UpdateError

_OF_FILES = {
    AuthorityCode.FILE_UNREADABLE: UpdateCode.FILE_UNREADABLE,
    AuthorityCode.FILE_MISSING: UpdateCode.FILE_UNREADABLE,
    AuthorityCode.FILE_MALFORMED: UpdateCode.FILE_UNREADABLE,
    AuthorityCode.FILE_UNWRITABLE: UpdateCode.FILE_UNWRITABLE,
    AuthorityCode.FILE_EXISTS: UpdateCode.FILE_UNWRITABLE,
}


@contextmanager
def translated() -> Iterator[None]:
    """What files and keys raise in the block, as `UpdateError`."""
    try:
        yield
    except AuthorityError as error:
        code = _OF_FILES.get(error.code, UpdateCode.KEY_UNUSABLE)
        raise UpdateError(code, error.message, error.remedy) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise UpdateError(
            UpdateCode.FILE_UNWRITABLE,
            f"{where}{error.strerror or error}",
            "see who may write to the folder and that the disk has room; nothing was published",
        ) from error


def missing() -> UpdateError:
    """There is no repository in the home."""
    return UpdateError(
        UpdateCode.REPOSITORY_MISSING,
        "this home has no update repository",
        "make one with 'muster update init'",
    )
