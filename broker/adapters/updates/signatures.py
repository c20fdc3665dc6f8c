"""Whose signatures staged metadata has and needs, and giving it more."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from securesystemslib.exceptions import UnverifiedSignatureError
from securesystemslib.signer import Key, Signature, Signer
from tuf.api.metadata import Metadata, Root, Targets

from broker.adapters.updates import keys
from broker.adapters.updates.roles import Roles
from broker.core.update_views import SignatureNeed
from broker.ports.updates import UpdateCode, UpdateError

OfflineMetadata = Metadata[Root] | Metadata[Targets]
Delegator = tuple[str, Root | Targets]


@dataclass(frozen=True)
class KeyReference:
    """How an operator names a private key: a file or a URI, and the file's passphrase."""

    reference: str
    passphrase: bytes | None = None


def needs_of(role: str, published: Roles, staged: Roles) -> tuple[SignatureNeed, ...]:
    """The signatures that a staged role has and lacks; nothing when nobody delegates to it."""
    metadata = staged.named()[role]
    return tuple(_need(role, metadata, by) for by in _delegators(role, published, staged))


def signing_keys(role: str, published: Roles, staged: Roles) -> dict[str, Key]:
    """The keys whose signatures count for a staged role, by id."""
    found: dict[str, Key] = {}
    for _, delegator in _delegators(role, published, staged):
        for keyid in delegator.get_delegated_role(role).keyids:
            found[keyid] = delegator.get_key(keyid)
    return found


def digest_of(metadata: OfflineMetadata) -> str:
    """SHA-256 of what is signed."""
    return hashlib.sha256(metadata.signed_bytes).hexdigest()


def check_shown(staged: Roles, shown: Mapping[str, str]) -> None:
    """Returns when what is staged is what somebody was shown, role by role.

    Raises:
        UpdateError: STAGING_DIFFERS.
    """
    if {role: digest_of(metadata) for role, metadata in staged.named().items()} != shown:
        raise UpdateError(
            UpdateCode.STAGING_DIFFERS,
            "what is staged has been changed since it was shown, so nothing was signed",
            "find out who changed it, and look at it again",
        )


def sign(staged: Roles, published: Roles, signers: Iterable[Signer]) -> list[tuple[str, str]]:
    """Signs every staged role that a key may sign; (role, key id) of each signature.

    Raises:
        UpdateError: KEY_NEEDLESS when a key may sign none of them; then nothing is to be kept.
    """
    made = []
    for signer in signers:
        keyid = signer.public_key.keyid
        roles = [role for role in staged.named() if keyid in signing_keys(role, published, staged)]
        if not roles:
            raise UpdateError(
                UpdateCode.KEY_NEEDLESS,
                f"the key {keyid[:16]} may sign nothing of what is staged",
                "see 'muster update status' for the keys that are awaited",
            )
        for role in roles:
            staged.named()[role].sign(signer, append=True)
            made.append((role, keyid))
    return made


def merge(into: Roles, other: Roles, published: Roles) -> list[tuple[str, str]]:
    """Takes over the good signatures that `other` has on the same metadata; (role, key id) of
    each.

    Raises:
        UpdateError: STAGING_DIFFERS when it isn't the same that was signed.
    """
    mine, taken = into.named(), []
    for role, theirs in other.named().items():
        if role not in mine or mine[role].signed_bytes != theirs.signed_bytes:
            raise UpdateError(
                UpdateCode.STAGING_DIFFERS,
                f"{role} {theirs.signed.version} isn't what is staged here",
                "export the staging again, and have that signed",
            )
        for keyid, key in signing_keys(role, published, into).items():
            signature = theirs.signatures.get(keyid)
            if signature is None or signature == mine[role].signatures.get(keyid):
                continue
            if _verifies(key, signature, mine[role]):
                mine[role].signatures[keyid] = signature
                taken.append((role, keyid))
    return taken


def open_signers(
    references: Sequence[KeyReference], published: Roles, staged: Roles
) -> list[Signer]:
    """The private keys that were named.

    Raises:
        UpdateError: KEY_MISSING, KEY_UNUSABLE.
        AuthorityError: a file can't be read or opened.
    """
    candidates: dict[str, Key] = {}
    for role in staged.named():
        candidates |= signing_keys(role, published, staged)
    return [
        keys.open_uri(each.reference, candidates.values(), each.passphrase)
        if keys.is_uri(each.reference)
        else keys.open_offline(Path(each.reference), each.passphrase)
        for each in references
    ]


def _delegators(role: str, published: Roles, staged: Roles) -> list[Delegator]:
    after = published.followed_by(staged)
    found: list[Delegator] = []
    if role == "root":
        roots = [root.signed for root in (published.root, staged.root) if root is not None]
        found += [(f"root {root.version}", root) for root in roots]
    elif role == "targets":
        if after.root is not None:
            found.append((f"root {after.root.signed.version}", after.root.signed))
    elif after.targets is not None and _delegates(after.targets.signed, role):
        found.append((f"targets {after.targets.signed.version}", after.targets.signed))
    return found


def _verifies(key: Key, signature: Signature, metadata: OfflineMetadata) -> bool:
    # A bad one that was taken over would stand in the way of a good one.
    try:
        key.verify_signature(signature, metadata.signed_bytes)
    except UnverifiedSignatureError:
        return False
    return True


def _delegates(targets: Targets, role: str) -> bool:
    return bool(
        targets.delegations and targets.delegations.roles and role in targets.delegations.roles
    )


def _need(role: str, metadata: OfflineMetadata, by: Delegator) -> SignatureNeed:
    name, delegator = by
    result = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    return SignatureNeed(name, result.threshold, tuple(result.signed), tuple(result.unsigned))
