"""What of a repository's metadata is believed, and by which rules it may change.

The rules are those of TUF's client workflow (specification 1.0.34, section 5), without files and
network. Each method either believes what it's given, or raises and has changed nothing. `recall_…`
is for what was believed once and lay on the disk: it holds off a rollback even when it has expired.
"""

import hashlib
from collections import defaultdict
from datetime import datetime
from typing import Final

from msgspec import UNSET

from broker.protocol import limits
from device_client.update import signing
from device_client.update.codes import UpdateCode, UpdateRefused
from device_client.update.metadata import (
    MetaFile,
    RawKeys,
    Role,
    Root,
    Signed,
    SignedT,
    Snapshot,
    Targets,
    Timestamp,
    Unverified,
    parse,
)

MAX_TIMESTAMP: Final = 16_384
FormerKeys = dict[str, frozenset[str]]
"""By role, the ids of keys that signed for it once and mustn't any more."""
DIRECTOR: Final = "director"
_TOP: Final = ("root", "timestamp", "snapshot", "targets")


class Trusted:
    """The metadata that is believed at one moment, which doesn't move while it's updated."""

    def __init__(self, root: bytes, now: datetime, former: FormerKeys | None = None) -> None:
        """Begins with a root that is trusted already, and must only be whole and signed by itself.

        Raises:
            UpdateRefused: it isn't.
        """
        found = parse(root, Root, limits.MAX_METADATA)
        signing.check(found, found.signed.roles.root, found.signed.keys)
        self.now = now
        self.root = found.signed
        self.former: FormerKeys = defaultdict(frozenset, former or {})
        self.timestamp: Timestamp | None = None
        self.snapshot: Snapshot | None = None
        self.targets: dict[tuple[str, str], Targets] = {}
        """By role and who delegated to it."""

    def update_root(self, data: bytes) -> None:
        """The next root, which both its predecessor's keys and its own have signed (5.3.4-5.3.7).

        Raises:
            UpdateRefused: it isn't, or isn't the next one.
        """
        found = parse(data, Root, limits.MAX_METADATA)
        new = found.signed
        signing.check(found, self.root.roles.root, self.root.keys, self.former["root"])
        if new.version != self.root.version + 1:
            raise UpdateRefused(
                UpdateCode.METADATA_ROLLED_BACK,
                f"Root {self.root.version + 1} says that it's {new.version}.",
            )
        signing.check(found, new.roles.root, new.keys)
        for name, before, after in _role_changes(self.root, new):
            gone = set(before.keyids) - set(after.keyids if after else ())
            self.former[name] = (self.former[name] | gone) - set(after.keyids if after else ())
        self.root = new

    def check_root(self) -> None:
        """Returns when the newest root hasn't expired (5.3.10).

        Raises:
            UpdateRefused: METADATA_EXPIRED.
        """
        self._check_fresh(self.root)

    def recall_timestamp(self, data: bytes) -> None:
        """A timestamp from the disk; keys that were rotated since make it worthless (5.3.11)."""
        found = parse(data, Timestamp, MAX_TIMESTAMP)
        self._check_top("timestamp", found)
        self.timestamp = found.signed

    def update_timestamp(self, data: bytes) -> bool:
        """A timestamp from outside (5.4); whether it says anything new.

        Raises:
            UpdateRefused: it isn't signed, goes back, or has expired.
        """
        found = parse(data, Timestamp, MAX_TIMESTAMP)
        self._check_top("timestamp", found)
        new, old = found.signed, self.timestamp
        if old is not None:
            _check_forward("The timestamp", new.version, old.version)
            if new.version == old.version:
                self._check_fresh(old)
                return False
            _check_forward("snapshot.json", new.meta.snapshot.version, old.meta.snapshot.version)
        self._check_fresh(new)
        self.timestamp = new
        return True

    def recall_snapshot(self, data: bytes) -> bool:
        """A snapshot from the disk; whether it's the one that the timestamp names, and valid."""
        found = parse(data, Snapshot, limits.MAX_METADATA)
        self._check_top("snapshot", found)
        self.snapshot = found.signed
        try:
            self._check_named("snapshot", data, found.signed, self._snapshot_meta)
        except UpdateRefused:
            return False
        return True

    def update_snapshot(self, data: bytes) -> None:
        """The snapshot that the timestamp names (5.5).

        Raises:
            UpdateRefused: it's another one, isn't signed, goes back, or has expired.
        """
        _check_content("snapshot", data, self._snapshot_meta)
        found = parse(data, Snapshot, limits.MAX_METADATA)
        self._check_top("snapshot", found)
        self._check_named("snapshot", data, found.signed, self._snapshot_meta)
        for name, old in (self.snapshot.meta if self.snapshot else {}).items():
            new = found.signed.meta.get(name)
            if new is None:
                raise UpdateRefused(
                    UpdateCode.METADATA_ROLLED_BACK, f"The new snapshot has lost {name}."
                )
            _check_forward(name, new.version, old.version)
        self.snapshot = found.signed

    def update_targets(self, role: str, delegator: str, data: bytes) -> Targets:
        """Targets metadata that the snapshot names (5.6), from the disk or from outside.

        Args:
            role: its name, `targets` for the top.
            delegator: which role delegates to it, `root` for the top.

        Raises:
            UpdateRefused: it's another one, isn't signed, or has expired.
        """
        meta = self.meta_of(role)
        _check_content(role, data, meta)
        found = parse(data, Targets, limits.MAX_METADATA)
        signer, keys = self._delegation(role, delegator)
        # Whoever delegates may have the same keys sign: then a root that took them out says so.
        signing.check(found, signer, keys, self.former["targets"])
        self._check_named(role, data, found.signed, meta)
        self.targets[role, delegator] = found.signed
        return found.signed

    def meta_of(self, role: str) -> MetaFile:
        """What the snapshot says of a targets role.

        Raises:
            UpdateRefused: METADATA_MIXED; nothing.
        """
        assert self.snapshot is not None, "the snapshot comes first"  # noqa: S101
        meta = self.snapshot.meta.get(f"{role}.json")
        if meta is None:
            raise UpdateRefused(UpdateCode.METADATA_MIXED, f"The snapshot doesn't know {role}.")
        return meta

    @property
    def _snapshot_meta(self) -> MetaFile:
        assert self.timestamp is not None, "the timestamp comes first"  # noqa: S101
        return self.timestamp.meta.snapshot

    def _delegation(self, role: str, delegator: str) -> tuple[Role, RawKeys]:
        if delegator == "root":
            return self.root.roles.targets, self.root.keys
        parent = next(found for (name, _), found in self.targets.items() if name == delegator)
        if parent.delegations:
            for each in parent.delegations.roles:
                if each.name == role:
                    return each, parent.delegations.keys
        raise UpdateRefused(UpdateCode.METADATA_MIXED, f"{delegator} doesn't delegate to {role}.")

    def _check_top(self, role: str, found: Unverified[SignedT]) -> None:
        signer: Role = getattr(self.root.roles, role)
        signing.check(found, signer, self.root.keys, self.former[role])

    def _check_named(self, role: str, data: bytes, signed: Signed, meta: MetaFile) -> None:
        """Returns when it's the very file that was named, and it's still valid."""
        _check_content(role, data, meta)
        if signed.version != meta.version:
            raise UpdateRefused(
                UpdateCode.METADATA_MIXED,
                f"{role} has version {signed.version} where {meta.version} belongs.",
            )
        self._check_fresh(signed)

    def _check_fresh(self, signed: Signed) -> None:
        if signed.expiry <= self.now:
            raise UpdateRefused(
                UpdateCode.METADATA_EXPIRED,
                f"{type(signed).__name__} {signed.version} expired at {signed.expires}.",
            )


def _check_content(role: str, data: bytes, meta: MetaFile) -> None:
    if meta.length is not UNSET and len(data) > meta.length:
        raise UpdateRefused(
            UpdateCode.METADATA_TOO_LARGE, f"{role} is longer than the {meta.length} bytes signed."
        )
    if meta.length is not UNSET and len(data) != meta.length:
        raise UpdateRefused(UpdateCode.METADATA_MIXED, f"{role} is shorter than was signed.")
    for algorithm, expected in (meta.hashes or {}).items():
        if digest(algorithm, data) != expected:
            raise UpdateRefused(UpdateCode.METADATA_MIXED, f"{role} isn't the file that was named.")


def digest(algorithm: str, data: bytes) -> str | None:
    """The hash in hex, or none by an algorithm that this program doesn't know."""
    return hashlib.new(algorithm, data).hexdigest() if algorithm in ("sha256", "sha512") else None


def _check_forward(name: str, new: int, old: int) -> None:
    if new < old:
        raise UpdateRefused(
            UpdateCode.METADATA_ROLLED_BACK, f"{name} goes back from version {old} to {new}."
        )


def _role_changes(old: Root, new: Root) -> list[tuple[str, Role, Role | None]]:
    changes: list[tuple[str, Role, Role | None]] = [
        (name, getattr(old.roles, name), getattr(new.roles, name)) for name in _TOP
    ]
    if old.director is not UNSET:
        changes.append((DIRECTOR, old.director, new.director or None))
    return changes
