"""The one way in which certificate authorities and their files fail."""

from enum import StrEnum


class AuthorityCode(StrEnum):
    """Stable names of the failures."""

    HOME_EXISTS = "home_exists"
    HOME_UNWRITABLE = "home_unwritable"
    HOST_INVALID = "host_invalid"
    NAME_INVALID = "name_invalid"
    PASSPHRASE_EMPTY = "passphrase_empty"  # noqa: S105 - a code
    PASSPHRASE_MISSING = "passphrase_missing"  # noqa: S105 - a code
    PASSPHRASE_NEEDLESS = "passphrase_needless"  # noqa: S105 - a code
    PASSPHRASE_WRONG = "passphrase_wrong"  # noqa: S105 - a code
    FILE_EXISTS = "file_exists"
    FILE_MISSING = "file_missing"
    FILE_UNREADABLE = "file_unreadable"
    FILE_UNWRITABLE = "file_unwritable"
    FILE_MALFORMED = "file_malformed"
    KEY_EXPOSED = "key_exposed"
    KEY_MISMATCH = "key_mismatch"
    KEY_NOT_ALLOWED = "key_not_allowed"
    VALIDITY_EMPTY = "validity_empty"


class AuthorityError(Exception):
    """An authority couldn't do what was asked; nothing was changed. `remedy` says what to do."""

    def __init__(self, code: AuthorityCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
