"""The update repository as the service sees it: meets `broker.ports.updates.UpdateRepository`."""

import base64
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from securesystemslib.signer import CryptoSigner

from broker.adapters.updates.failures import missing, translated
from broker.adapters.updates.images import has_length
from broker.adapters.updates.layout import UpdateFolders, consistent_name
from broker.adapters.updates.lifetimes import read_lifetimes
from broker.adapters.updates.locking import held
from broker.adapters.updates.metadata import image_of
from broker.adapters.updates.online import DIRECTOR, director_of, online_signers, why_unusable
from broker.adapters.updates.published import Published, load_published, state_in_force
from broker.adapters.updates.publishing import Publisher, needs_refresh
from broker.core.metadata_lifetime import Lifetimes, is_lapsing
from broker.ports.updates import Lapse, PublishedTarget, UpdateCode, UpdateError
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import KeySignature, SignedAssignment


@dataclass(frozen=True)
class _Read:
    """A state, and what was made of it once."""

    state: Published
    lifetimes: Lifetimes
    targets: list[PublishedTarget]
    directors: list[CryptoSigner]
    """Empty until an assignment is signed."""


class HomeUpdateRepository:
    """The repository under a home's `updates/`; safe to call from several threads."""

    def __init__(self, folder: Path, passphrase: bytes | None) -> None:
        self._folders = UpdateFolders(folder)
        self._passphrase = passphrase
        self._lock = threading.Lock()
        self._read: _Read | None = None

    def files(self) -> Mapping[str, bytes]:
        """See `UpdateRepository`."""
        read = self._current()
        return {} if read is None else read.state.files

    def targets(self) -> list[PublishedTarget]:
        """See `UpdateRepository`."""
        read = self._current()
        return [] if read is None else list(read.targets)

    def image(self, path: str, sha256: str) -> Path:
        """See `UpdateRepository`."""
        read = self._current()
        roles = {} if read is None else read.state.models
        for role in roles.values():
            target = role.signed.targets.get(path)
            if target is None or target.hashes.get("sha256") != sha256:
                continue
            file = self._folders.targets / consistent_name(path, sha256)
            if has_length(file, target.length):
                return file
        raise UpdateError(
            UpdateCode.IMAGE_UNKNOWN,
            f"no target {path} with that content is published",
            "see 'muster update status' for those that are",
        )

    def refresh(self, now: datetime) -> bool:
        """See `UpdateRepository`."""
        read = self._current()
        if read is None or not needs_refresh(read.state, read.lifetimes, now):
            return False
        try:
            with translated(), held(self._folders, patience_s=0):
                # Read anew: a command may have published since.
                state = load_published(self._folders)
                if state is None:
                    return False
                publisher = Publisher(self._folders, read.lifetimes, self._passphrase, now)
                return publisher.refresh(state)
        except UpdateError as error:
            if error.code is UpdateCode.REPOSITORY_BUSY:
                return False
            raise

    def sign_assignment(self, text: str) -> SignedAssignment:
        """See `UpdateRepository`."""
        read = self._current()
        if read is None:
            raise missing()
        statement = assignment_statement(text)
        signatures = tuple(
            KeySignature(keyid=signer.public_key.keyid, signature=_base64(signer, statement))
            for signer in self._directors(read)
        )
        return SignedAssignment(assignment=text, signatures=signatures)

    def directors(self) -> frozenset[str]:
        """See `UpdateRepository`."""
        read = self._current()
        if read is None:
            return frozenset()
        keyids, _ = director_of(read.state.root.signed)
        return frozenset(keyids)

    def lapsing(self, now: datetime) -> list[Lapse]:
        """See `UpdateRepository`."""
        read = self._current()
        if read is None:
            return []
        state = read.state
        online = {"snapshot": state.snapshot.signed, "timestamp": state.timestamp.signed}
        offline = {role: found.signed for role, found in state.roles.named().items()}
        expiries = {role: signed.expires for role, signed in (online | offline).items()}
        lapses = [
            Lapse(role, expires)
            for role, expires in expiries.items()
            if is_lapsing(expires, read.lifetimes.of(role), now)
        ]
        return sorted(lapses, key=lambda lapse: lapse.expires)

    def unusable_keys(self) -> list[UpdateError]:
        """See `UpdateRepository`."""
        read = self._current()
        if read is None:
            return []
        root = read.state.root.signed
        directors, _ = director_of(root)
        keyids = {role: root.roles[role].keyids for role in ("snapshot", "timestamp")}
        found = []
        for role, ids in (keyids | {DIRECTOR: directors}).items():
            error = why_unusable(self._folders, role, ids, self._passphrase)
            if error is not None:
                found.append(error)
        return found

    def _directors(self, read: _Read) -> list[CryptoSigner]:
        with self._lock:
            if not read.directors:
                keyids, _ = director_of(read.state.root.signed)
                with translated():
                    read.directors[:] = online_signers(
                        self._folders, DIRECTOR, keyids, self._passphrase
                    )
            return list(read.directors)

    def _current(self) -> _Read | None:
        """The state in force, read anew only when it's another one."""
        with translated(), self._lock:
            name = state_in_force(self._folders)
            if name is None:
                self._read = None
            elif self._read is None or self._read.state.name != name:
                self._read = self._read_anew()
            return self._read

    def _read_anew(self) -> _Read | None:
        state = load_published(self._folders)
        if state is None:
            return None
        return _Read(state, read_lifetimes(self._folders), _published(state), [])


def _published(state: Published) -> list[PublishedTarget]:
    found = []
    for role in state.models.values():
        for path, target in role.signed.targets.items():
            image = image_of(target)
            if image is not None:
                found.append(PublishedTarget(path, image.sha256, target.length, image.facts))
    return sorted(found, key=lambda each: each.path)


def _base64(signer: CryptoSigner, statement: bytes) -> str:
    return base64.b64encode(bytes.fromhex(signer.sign(statement).signature)).decode("ascii")
