"""A TUF repository made by python-tuf, with Muster's director, to try the device's verifier on.

Whatever is changed is signed and published by `publish`; what tests attack with they make out of
`files`.
"""

import base64
import copy
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from broker.protocol import codec
from broker.protocol.statements import assignment_statement
from broker.protocol.updates import (
    DIRECTOR_FIELD,
    AssignedTarget,
    Assignment,
    ImageFacts,
    KeySignature,
    SignedAssignment,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
FACTS = ImageFacts(model="meter", version="2.0.0", security_counter=2)
ROLES = ("root", "timestamp", "snapshot", "targets")


def new_signer() -> CryptoSigner:
    """A fresh Ed25519 key."""
    return CryptoSigner.generate_ed25519()


@dataclass
class MadeRepository:
    """What a repository's owner holds: all keys, and the newest unsigned metadata."""

    now: datetime = NOW
    files: dict[str, bytes] = field(default_factory=dict)
    """What is published, by file name."""
    images: dict[str, bytes] = field(default_factory=dict)
    signers: dict[str, list[CryptoSigner]] = field(default_factory=dict)
    threshold: int = 1
    hashes: bool = True

    def __post_init__(self) -> None:
        for role in (*ROLES, "director"):
            self.signers[role] = [new_signer() for _ in range(self.threshold)]
        later = self.now + timedelta(days=365)
        self.root = Root(expires=later, consistent_snapshot=True)
        self.root.version = 0
        self.targets = Targets(expires=later)
        self.targets.version = 0
        self.snapshot = Snapshot(expires=self.now + timedelta(days=30))
        self.snapshot.version = 0
        self.timestamp = Timestamp(expires=self.now + timedelta(days=7))
        self.timestamp.version = 0
        self.delegated: dict[str, Targets] = {}
        for role in ROLES:
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
            self.root.roles[role].threshold = self.threshold
        self._name_director()
        self.publish_root()
        self.publish()

    @property
    def first_root(self) -> bytes:
        """What is flashed."""
        return self.files["1.root.json"]

    def publish_root(self, old: Iterable[CryptoSigner] = ()) -> None:
        """The next root, signed by its own keys and the `old` ones."""
        self.root.version += 1
        self.files[f"{self.root.version}.root.json"] = signed(
            self.root, [*self.signers["root"], *old]
        )

    def publish(self, *, targets: bool = True) -> None:
        """The next versions of all but root."""
        if targets:
            self.targets.version += 1
        data = signed(self.targets, self.signers["targets"])
        self.files[f"{self.targets.version}.targets.json"] = data
        self.snapshot.meta["targets.json"] = self.meta(self.targets.version, data)
        for name, role in self.delegated.items():
            data = signed(role, self.signers[name])
            self.files[f"{role.version}.{name}.json"] = data
            self.snapshot.meta[f"{name}.json"] = self.meta(role.version, data)
        self.publish_snapshot()

    def publish_snapshot(self) -> None:
        """The next snapshot and timestamp."""
        self.snapshot.version += 1
        data = signed(self.snapshot, self.signers["snapshot"])
        self.files[f"{self.snapshot.version}.snapshot.json"] = data
        self.timestamp.snapshot_meta = self.meta(self.snapshot.version, data)
        self.publish_timestamp()

    def publish_timestamp(self) -> None:
        """The next timestamp."""
        self.timestamp.version += 1
        self.files["timestamp.json"] = signed(self.timestamp, self.signers["timestamp"])

    def meta(self, version: int, data: bytes) -> MetaFile:
        """How a file is named by the one above it."""
        if not self.hashes:
            return MetaFile(version)
        return MetaFile(version, len(data), {"sha256": sha256(data).hexdigest()})

    def rotate(self, *roles: str) -> list[CryptoSigner]:
        """New keys for the roles, in a new root; the keys they had."""
        gone = [signer for role in roles for signer in self.signers[role]]
        for role in roles:
            old = self.signers[role]
            self.signers[role] = [new_signer() for _ in range(self.threshold)]
            if role == "director":
                continue
            for signer in old:
                self.root.revoke_key(signer.public_key.keyid, role)
            for signer in self.signers[role]:
                self.root.add_key(signer.public_key, role)
        self._name_director()
        self.publish_root(gone if "root" in roles else ())
        return gone

    def delegate(self, name: str, paths: list[str], *, terminating: bool = True) -> Targets:
        """A role below targets that speaks for the paths."""
        self.signers[name] = [new_signer()]
        role = Targets(expires=self.now + timedelta(days=365))
        if self.targets.delegations is None:
            self.targets.delegations = Delegations({}, {})
        assert self.targets.delegations.roles is not None
        self.targets.delegations.roles[name] = DelegatedRole(name, [], 1, terminating, paths)
        self.targets.add_key(self.signers[name][0].public_key, name)
        self.delegated[name] = role
        return role

    def add(
        self,
        path: str,
        content: bytes,
        facts: ImageFacts | None = FACTS,
        to: Targets | None = None,
    ) -> AssignedTarget:
        """An image, signed at the next `publish`."""
        found = TargetFile.from_data(path, content)
        if facts is not None:
            found.unrecognized_fields["custom"] = json.loads(codec.encode(facts))
        (to or self.targets).targets[path] = found
        self.images[path] = content
        return AssignedTarget(path=path, sha256=found.hashes["sha256"], length=found.length)

    def assign(self, *targets: AssignedTarget, **changes: Any) -> bytes:
        """A signed assignment as it's retained."""
        return self.sign_assignment(assignment(*targets, **changes))

    def sign_assignment(self, found: Assignment) -> bytes:
        """Signed by the director's keys of now."""
        text = codec.encode(found).decode()
        return codec.encode(
            SignedAssignment(
                assignment=text,
                signatures=tuple(director_signature(x, text) for x in self.signers["director"]),
            )
        )

    def fork(self) -> "MadeRepository":
        """The same keys and files, which then go another way."""
        return copy.deepcopy(self)

    def _name_director(self) -> None:
        keys = self.signers["director"]
        for signer in keys:
            self.root.keys[signer.public_key.keyid] = signer.public_key
        self.root.unrecognized_fields[DIRECTOR_FIELD] = {
            "keyids": [signer.public_key.keyid for signer in keys],
            "threshold": self.threshold,
        }


def assignment(*targets: AssignedTarget, **changes: Any) -> Assignment:
    """An assignment for the device `meter-1` with valid defaults."""
    given: dict[str, Any] = {
        "device_id": "meter-1",
        "sequence": 1,
        "rollout": "spring",
        "nonce": "0123456789abcdef",
        "issued_at": NOW,
        "expires": NOW + timedelta(days=7),
    }
    return Assignment(targets=targets, **{**given, **changes})


def director_signature(signer: CryptoSigner, text: str) -> KeySignature:
    """As the director signs."""
    made = signer.sign(assignment_statement(text))
    return KeySignature(
        keyid=made.keyid,
        signature=base64.b64encode(bytes.fromhex(made.signature)).decode(),
    )


def signed(role: Root | Targets | Snapshot | Timestamp, signers: Iterable[CryptoSigner]) -> bytes:
    """The role's metadata, signed."""
    made: Metadata[Any] = Metadata(copy.deepcopy(role))
    for signer in signers:
        made.sign(signer, append=True)
    return made.to_bytes()


class FilesSource:
    """The repository's files from memory; notes what was asked for."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.asked: list[str] = []

    async def fetch(self, name: str, limit: int) -> bytes | None:
        """As `MetadataSource` says."""
        self.asked.append(name)
        data = self.files.get(name)
        return None if data is None else data[: limit + 1]
