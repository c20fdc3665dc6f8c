"""The update repository as the operator's commands see it: one act at a time, under its lock."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import Key

from broker.adapters.ca.files import read_file
from broker.adapters.ca.home import MusterHome
from broker.adapters.clock import SystemClock
from broker.adapters.updates import ceremonies, keys, staging
from broker.adapters.updates.ceremonies import KeySet, RootChange
from broker.adapters.updates.drafts import Drafting
from broker.adapters.updates.failures import translated
from broker.adapters.updates.images import measure
from broker.adapters.updates.keys import ALGORITHMS
from broker.adapters.updates.layout import UpdateFolders
from broker.adapters.updates.lifetimes import read_lifetimes
from broker.adapters.updates.locking import held
from broker.adapters.updates.online import ONLINE_ROLES, forget_keys
from broker.adapters.updates.published import Published, load_published
from broker.adapters.updates.publishing import Publisher, clear_away
from broker.adapters.updates.repository import HomeUpdateRepository
from broker.adapters.updates.roles import Roles, save_roles
from broker.adapters.updates.signatures import KeyReference, check_shown, open_signers, sign
from broker.adapters.updates.staging import NewImage
from broker.adapters.updates.views import repository_view, staged_view
from broker.core.metadata_lifetime import Lifetimes
from broker.core.update_views import RepositoryView, StagedRole
from broker.ports.clock import Clock
from broker.ports.updates import UpdateCode, UpdateError

__all__ = [
    "ALGORITHMS",
    "ONLINE_ROLES",
    "ExportedStaging",
    "Key",
    "KeyReference",
    "KeySet",
    "NewImage",
    "RootChange",
    "UpdateDesk",
]

Passphrase = bytes | Callable[[], bytes | None] | None
"""What opens the online keys, or what reads it when one of them is needed."""


@dataclass(frozen=True)
class _Open:
    """What there is, while the lock is held."""

    state: Published | None
    staged: Roles
    lifetimes: Lifetimes
    now: datetime

    @property
    def published(self) -> Roles:
        return Roles() if self.state is None else self.state.roles

    @property
    def drafting(self) -> Drafting:
        return Drafting(self.published, self.staged, self.lifetimes, self.now)


@dataclass(frozen=True)
class UpdateDesk:
    """The repository in a home. Every method blocks, and raises `UpdateError` and
    `AuthorityError`; what it refuses it leaves as it was.
    """

    home: MusterHome
    passphrase: Passphrase
    clock: Clock

    @property
    def folders(self) -> UpdateFolders:
        return UpdateFolders(self.home.updates)

    def require_none(self) -> None:
        """Returns when the home has no repository: keys made for a second one would be in vain.

        Raises:
            UpdateError: REPOSITORY_EXISTS.
        """
        ceremonies.refuse_existing(self.folders)

    def create(
        self, root: KeySet, targets: KeySet, lifetimes: Lifetimes, algorithm: str
    ) -> tuple[StagedRole, ...]:
        """Makes the repository; root and targets wait for signatures."""
        with translated():
            ceremonies.create_repository(
                self.folders,
                root,
                targets,
                lifetimes,
                algorithm,
                self._opened(),
                self.clock.now(),
            )
        return self.staged()

    def add(self, new: NewImage) -> tuple[StagedRole, ...]:
        """Stages an image."""
        with self._open() as found:
            return self._stage(found, staging.add_image(found.drafting, self.folders, new))

    def revoke(self, named: str, reason: str) -> tuple[tuple[StagedRole, ...], list[str]]:
        """Stages a model's role without the targets of a path, a SHA-256, or a file's content;
        what is staged, and the paths taken out."""
        with self._open() as found:
            if Path(named).is_file():
                named = measure(Path(named)).sha256
            staged, paths = staging.revoke_image(found.drafting, named, reason)
            return self._stage(found, staged), paths

    def renew(self) -> tuple[StagedRole, ...]:
        """Stages targets and every model's role for another lifetime."""
        with self._open() as found:
            return self._stage(found, staging.renew_roles(found.drafting))

    def rotate_root(self, change: RootChange, algorithm: str) -> tuple[StagedRole, ...]:
        """Stages the next root."""
        with self._open() as found:
            staged = ceremonies.rotate_root(
                found.drafting, self.folders, change, algorithm, self._opened()
            )
            return self._stage(found, staged)

    def staged(self) -> tuple[StagedRole, ...]:
        """What waits for signatures or for being published."""
        with self._open() as found:
            return staged_view(found.published, found.staged)

    def sign(
        self, references: Sequence[KeyReference], shown: Sequence[StagedRole]
    ) -> list[tuple[str, str]]:
        """Signs what is staged if it's what was shown; (role, key id) of each signature."""
        with self._open() as found:
            self._require_staged(found)
            check_shown(found.staged, {role.role: role.digest for role in shown})
            signers = open_signers(references, found.published, found.staged)
            made = sign(found.staged, found.published, signers)
            save_roles(self.folders.staged_metadata, found.staged)
            return made

    def export_staging(self, folder: Path) -> tuple[StagedRole, ...]:
        """Writes what is staged into a new folder, for keys on another machine."""
        with self._open() as found:
            self._require_staged(found)
            staging.export_staging(folder, found.published, found.staged)
            return staged_view(found.published, found.staged)

    def import_staging(self, folder: Path) -> list[tuple[str, str]]:
        """Takes the signatures that were made in an exported folder; (role, key id) of each."""
        with self._open() as found:
            self._require_staged(found)
            taken = staging.import_signatures(folder, found.published, found.staged)
            save_roles(self.folders.staged_metadata, found.staged)
            return taken

    def discard(self) -> None:
        """Forgets what is staged. What is published stays."""
        with self._open(check_staging=False) as found:
            if found.state is None:
                raise UpdateError(
                    UpdateCode.STAGING_IN_THE_WAY,
                    "nothing is published yet, so without the staging nothing would be left",
                    f"to start over, move {self.folders.path} away and run 'muster update init'",
                )
            staging.discard_staging(self.folders)
            forget_keys(self.folders, found.state.root.signed.keys)

    def publish(self) -> RepositoryView:
        """Puts what is staged in force."""
        with self._open() as found:
            self._require_staged(found)
            publisher = Publisher(self.folders, found.lifetimes, self._opened(), found.now)
            state = publisher.publish(found.state, found.staged)
            return repository_view(state, Roles(), found.lifetimes, found.now)

    def view(self) -> RepositoryView:
        """Everything."""
        with self._open() as found:
            return repository_view(found.state, found.staged, found.lifetimes, found.now)

    @contextmanager
    def _open(self, *, check_staging: bool = True) -> Iterator[_Open]:
        with translated(), held(self.folders):
            state = load_published(self.folders)
            published = Roles() if state is None else state.roles
            staged = Roles()
            if check_staging:
                staged = staging.load_staged(self.folders, published)
                if not staged and state is not None and self.folders.staging.exists():
                    clear_away(self.folders, state)  # what a killed publication left
            yield _Open(state, staged, read_lifetimes(self.folders), self.clock.now())

    def _stage(self, found: _Open, staged: Roles) -> tuple[StagedRole, ...]:
        save_roles(self.folders.staged_metadata, staged)
        return staged_view(found.published, staged)

    def _opened(self) -> bytes | None:
        return self.passphrase() if callable(self.passphrase) else self.passphrase

    def _require_staged(self, found: _Open) -> None:
        if not found.staged:
            raise nothing_staged()


@dataclass(frozen=True)
class ExportedStaging:
    """A folder that `export_staging` made, on a machine that has no home."""

    folder: Path

    def staged(self) -> tuple[StagedRole, ...]:
        """What waits for signatures, by the metadata that will be signed."""
        with translated():
            published, staged = staging.load_exported(self.folder)
            return staged_view(published, staged)

    def sign(
        self, references: Sequence[KeyReference], shown: Sequence[StagedRole]
    ) -> list[tuple[str, str]]:
        """Signs what is in it if it's what was shown; (role, key id) of each signature."""
        with translated():
            published, staged = staging.load_exported(self.folder)
            check_shown(staged, {role.role: role.digest for role in shown})
            made = sign(staged, published, open_signers(references, published, staged))
            staging.save_exported(self.folder, staged)
            return made


def nothing_staged() -> UpdateError:
    """There is nothing to sign or to publish."""
    return UpdateError(
        UpdateCode.NOTHING_STAGED,
        "nothing is staged",
        "begin with 'muster update add', 'renew' or 'rotate-root'",
    )


def new_key(path: Path, algorithm: str, passphrase: bytes | None) -> Key:
    """Makes a key file (0600), and its public half beside it (`.pub`).

    Raises:
        UpdateError: FILE_UNWRITABLE, also when the file exists; KEY_UNUSABLE.
    """
    with translated():
        return keys.new_key_file(path, algorithm, passphrase)


def public_key(path: Path) -> Key:
    """The public key in a `.pub` file.

    Raises:
        UpdateError: FILE_UNREADABLE or KEY_UNUSABLE.
    """
    with translated():
        return keys.read_public(path)


def needs_passphrase(reference: str) -> bool:
    """Whether a private key is an encrypted file, or in a token that asks for a PIN.

    Raises:
        UpdateError: FILE_UNREADABLE.
    """
    if keys.is_uri(reference):
        return keys.wants_pin(reference)
    with translated():
        return b"ENCRYPTED" in read_file(Path(reference))  # RFC 7468, 11


def update_desk(home: MusterHome, passphrase: Passphrase) -> UpdateDesk:
    """The commands' desk in a home."""
    return UpdateDesk(home, passphrase, SystemClock())


def update_repository(home: MusterHome, passphrase: bytes | None) -> HomeUpdateRepository:
    """The repository as the service sees it; the home may have none yet."""
    return HomeUpdateRepository(home.updates, passphrase)
