"""What the services need of the update repository, as a Protocol. `broker.adapters.updates` meets
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from broker.protocol.updates import ImageFacts, SignedAssignment


class UpdateCode(StrEnum):
    """Why the repository couldn't do what was asked; scripts rely on these."""

    REPOSITORY_MISSING = "update_repository_missing"
    REPOSITORY_EXISTS = "update_repository_exists"
    REPOSITORY_BUSY = "update_repository_busy"
    REPOSITORY_DAMAGED = "update_repository_damaged"
    FILE_UNREADABLE = "update_file_unreadable"
    FILE_UNWRITABLE = "update_file_unwritable"
    IMAGE_UNKNOWN = "image_unknown"
    IMAGE_INVALID = "image_invalid"
    IMAGE_EXISTS = "image_exists"
    COUNTER_TOO_LOW = "security_counter_too_low"
    METADATA_TOO_LARGE = "metadata_too_large"
    NOTHING_STAGED = "nothing_staged"
    STAGING_IN_THE_WAY = "staging_in_the_way"
    STAGING_DIFFERS = "staging_differs"
    SIGNATURES_MISSING = "signatures_missing"
    KEY_NEEDLESS = "key_needless"
    KEY_MISSING = "update_key_missing"
    KEY_UNUSABLE = "update_key_unusable"
    THRESHOLD_INVALID = "threshold_invalid"
    VERIFICATION_FAILED = "update_verification_failed"


class UpdateError(Exception):
    """The repository couldn't do what was asked; nothing was published. `remedy` says what to do
    next."""

    def __init__(self, code: UpdateCode, message: str, remedy: str) -> None:
        super().__init__(message)
        self.code = code
        self.remedy = remedy


@dataclass(frozen=True)
class PublishedTarget:
    """An image that the offline keys have signed."""

    path: str
    """Its path in TUF's sense, such as `meter/1.4.0/firmware.bin`."""
    sha256: str
    length: int
    facts: ImageFacts


@dataclass(frozen=True)
class Lapse:
    """Metadata that expires soon, or has; devices refuse every update from then on."""

    role: str
    expires: datetime


class UpdateRepository(Protocol):
    """What has been published. Every method reads files, so call it in a thread.

    A home without a repository has no files, no targets and nothing that lapses. One that is made
    while the service runs is seen at the next call.
    """

    def files(self) -> Mapping[str, bytes]:
        """All the metadata that a client needs, by file name: every version of root, the current
        one of each other role. One consistent state, however often it's published meanwhile.

        Raises:
            UpdateError: REPOSITORY_DAMAGED or FILE_UNREADABLE.
        """

    def targets(self) -> list[PublishedTarget]:
        """All images, by path.

        Raises:
            UpdateError: REPOSITORY_DAMAGED or FILE_UNREADABLE.
        """

    def image(self, path: str, sha256: str) -> Path:
        """The file of a published target, a bill of materials too.

        Raises:
            UpdateError: IMAGE_UNKNOWN.
        """

    def refresh(self, now: datetime) -> bool:
        """Signs snapshot and timestamp anew when a third of their life is left; whether it did.
        While a command changes the repository it does nothing, so call it again soon.

        Raises:
            UpdateError: KEY_MISSING, FILE_UNREADABLE, FILE_UNWRITABLE or REPOSITORY_DAMAGED.
        """

    def sign_assignment(self, text: str) -> SignedAssignment:
        """The assignment's JSON text with the director's signature.

        Raises:
            UpdateError: REPOSITORY_MISSING or KEY_MISSING.
        """

    def directors(self) -> frozenset[str]:
        """The ids of the keys that root names as the director's; none without a repository.

        Raises:
            UpdateError: REPOSITORY_DAMAGED or FILE_UNREADABLE.
        """

    def lapsing(self, now: datetime) -> list[Lapse]:
        """The roles that somebody has to sign anew soon, the most urgent first."""

    def unusable_keys(self) -> list[UpdateError]:
        """For each online role that can't be signed for: why, and what to do. Keys that need a
        passphrase which wasn't given count as usable.

        Raises:
            UpdateError: REPOSITORY_DAMAGED or FILE_UNREADABLE.
        """
