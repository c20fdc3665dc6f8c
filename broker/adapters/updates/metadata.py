"""TUF's metadata as files: reading, writing, and what Muster keeps in them."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, Root, Snapshot, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError
from tuf.api.serialization.json import JSONSerializer

from broker.adapters.ca.files import read_file
from broker.core.image_policy import Image
from broker.ports.updates import UpdateCode, UpdateError
from broker.protocol import limits
from broker.protocol.updates import ImageFacts

SignedT = TypeVar("SignedT", Root, Targets, Snapshot, Timestamp)

MODEL_PREFIX: Final = "model-"
REVOKED_FIELD: Final = "x-muster-revoked"
"""In a model's role: the targets that were taken out, so that none comes back by mistake."""


def read_metadata(path: Path, kind: type[SignedT]) -> Metadata[SignedT]:
    """The metadata in a file, its signatures not checked yet.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
        AuthorityError: FILE_MISSING or FILE_UNREADABLE.
    """
    return parse_metadata(read_file(path), kind, str(path))


def parse_metadata(content: bytes, kind: type[SignedT], where: str) -> Metadata[SignedT]:
    """As `read_metadata`, from its text."""
    try:
        found: Metadata[SignedT] = Metadata.from_bytes(content)
    except (DeserializationError, RepositoryError) as error:
        raise damaged(f"{where} isn't TUF metadata: {error}") from error
    if not isinstance(found.signed, kind):
        raise damaged(f"{where} isn't {kind.type} metadata")
    _check_keys(found.signed, where)
    return found


def _check_keys(signed: Root | Targets | Snapshot | Timestamp, where: str) -> None:
    """Whether each key has the id that is its own: people read ids and not keys, and python-tuf
    takes any id."""
    keys: Mapping[str, Key] = {}
    if isinstance(signed, Root):
        keys = signed.keys
    elif isinstance(signed, Targets) and signed.delegations is not None:
        keys = signed.delegations.keys
    for keyid, key in keys.items():
        said = {"keytype": key.keytype, "scheme": key.scheme, "keyval": key.keyval}
        canonical = encode_canonical(said) or ""
        if hashlib.sha256(canonical.encode()).hexdigest() != keyid:
            raise damaged(f"{where} has a key under the id {keyid}, which isn't its own")


AnyMetadata = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]


def encode_metadata(metadata: AnyMetadata) -> bytes:
    """The metadata as its file's text.

    Raises:
        UpdateError: METADATA_TOO_LARGE for the broker that carries it.
    """
    content = metadata.to_bytes(JSONSerializer(compact=True))
    if len(content) > limits.MAX_METADATA:
        raise UpdateError(
            UpdateCode.METADATA_TOO_LARGE,
            f"the metadata would have {len(content):,} bytes, and the broker carries "
            f"{limits.MAX_METADATA:,}",
            "revoke images that nobody needs any more, or shorten the notes",
        )
    return content


def copy_signed(signed: SignedT) -> SignedT:
    """A copy that shares nothing with the original."""
    copied: Metadata[SignedT] = Metadata.from_bytes(Metadata(signed).to_bytes())
    return copied.signed


def model_role(model: str) -> str:
    """The name of the role that signs a model's images."""
    return MODEL_PREFIX + model


def image_of(target: TargetFile) -> Image | None:
    """The image that a target is; none for what isn't one, such as a bill of materials.

    Raises:
        UpdateError: REPOSITORY_DAMAGED.
    """
    if target.custom is None:
        return None
    try:
        facts = msgspec.convert(target.custom, ImageFacts)
    except msgspec.ValidationError as error:
        raise damaged(f"{target.path} has facts that aren't: {error}") from error
    return Image(target.path, target.hashes["sha256"], facts)


def target_of(path: str, sha256: str, length: int, facts: ImageFacts | None) -> TargetFile:
    """The target of an image, or of a file without facts."""
    unrecognized = {} if facts is None else {"custom": _facts_json(facts)}
    return TargetFile(length, {"sha256": sha256}, path, unrecognized)


def _facts_json(facts: ImageFacts) -> dict[str, object]:
    """Without what is at its default: it travels to every device."""
    plain: dict[str, object] = msgspec.to_builtins(facts, str_keys=True)
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in plain.items()
        if value is not None and value not in ((), [], {})
    }


def damaged(message: str) -> UpdateError:
    """What lies in the home can't be right."""
    return UpdateError(
        UpdateCode.REPOSITORY_DAMAGED,
        message,
        "restore the home's updates/ from your backup, and see who may write to it",
    )
