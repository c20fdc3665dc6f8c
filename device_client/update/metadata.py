"""TUF's metadata as types (TUF specification 1.0.34, section 4). Nothing here is trusted yet.

Unknown fields are kept for the signature's sake only. Sizes are checked before parsing. What may be
missing may not be null: a reader that doesn't tell the two apart would sign something else.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Final, Generic, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from broker.protocol import updates
from device_client.update import canonical
from device_client.update.codes import UpdateCode, UpdateRefused

HIGHEST_VERSION: Final = (1 << 31) - 1
"""A version beyond it was never reached by counting: somebody runs fast forward, to the end."""
_MAX_DEPTH: Final = 32

Expiry = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ\Z")]
Version = Annotated[int, Meta(ge=1)]
Length = Annotated[int, Meta(ge=0)]
Hashes = Annotated[dict[str, str], Meta(min_length=1)]
SpecVersion = Annotated[str, Meta(pattern=r"^1\.\d+(\.\d+)?\Z")]
RawKeys = dict[str, dict[str, Any]]
"""Keys by their ids, as they stand there: an id is the hash of all that a key says. One of a kind
that this program doesn't know is no fault: others may suffice, and a repository must be able to
move on from one kind to the next."""


class Role(Struct, frozen=True, kw_only=True):
    """Which keys sign, and how many must."""

    keyids: tuple[str, ...]
    threshold: Annotated[int, Meta(ge=1)]

    def __post_init__(self) -> None:
        if len(set(self.keyids)) != len(self.keyids):
            raise ValueError("a key id is there twice")


class Signed(Struct, frozen=True, kw_only=True):
    """What all roles' metadata has."""

    spec_version: SpecVersion
    version: Version
    expires: Expiry

    def __post_init__(self) -> None:
        moment(self.expires)

    @property
    def expiry(self) -> datetime:
        """From when on it isn't valid any more."""
        return moment(self.expires)


class Roles(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The top-level roles."""

    root: Role
    timestamp: Role
    snapshot: Role
    targets: Role


class Root(Signed, frozen=True, kw_only=True):
    """Who may sign what; the one thing that comes flashed."""

    type: Literal["root"] = field(name="_type")
    keys: RawKeys
    roles: Roles
    consistent_snapshot: bool | UnsetType = UNSET
    director: Role | UnsetType = field(name=updates.DIRECTOR_FIELD, default=UNSET)


class MetaFile(Struct, frozen=True, kw_only=True):
    """Which version of a file belongs to this state of the repository."""

    version: Version
    length: Length | UnsetType = UNSET
    hashes: Hashes | UnsetType = UNSET


class TimestampMeta(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The one file that the timestamp names."""

    snapshot: MetaFile = field(name="snapshot.json")


class Timestamp(Signed, frozen=True, kw_only=True):
    """Which snapshot is the newest."""

    type: Literal["timestamp"] = field(name="_type")
    meta: TimestampMeta


class Snapshot(Signed, frozen=True, kw_only=True):
    """Which versions of all targets metadata belong together."""

    type: Literal["snapshot"] = field(name="_type")
    meta: dict[str, MetaFile]


class TargetFile(Struct, frozen=True, kw_only=True):
    """A file that may be installed; `custom` is the application's."""

    length: Length
    hashes: Hashes
    custom: msgspec.Raw = msgspec.Raw(b"null")


class Delegation(Role, frozen=True, kw_only=True):
    """A role that speaks for some paths; exactly one of the two ways to name them is used."""

    name: Annotated[str, Meta(min_length=1)]
    terminating: bool
    paths: tuple[str, ...] | UnsetType = UNSET
    path_hash_prefixes: tuple[str, ...] | UnsetType = UNSET

    def __post_init__(self) -> None:
        Role.__post_init__(self)
        if (self.paths is UNSET) == (self.path_hash_prefixes is UNSET):
            raise ValueError("a delegation has paths, or else hash prefixes")
        if self.name in ("root", "timestamp", "snapshot", "targets"):
            raise ValueError("a delegation can't have a top-level role's name")


class Delegations(Struct, frozen=True, kw_only=True):
    """To whom a targets role delegates, in the order of trust."""

    keys: RawKeys
    roles: tuple[Delegation, ...]

    def __post_init__(self) -> None:
        if len({role.name for role in self.roles}) != len(self.roles):
            raise ValueError("a role is delegated to twice")


class Targets(Signed, frozen=True, kw_only=True):
    """Files that may be installed."""

    type: Literal["targets"] = field(name="_type")
    targets: dict[str, TargetFile]
    delegations: Delegations | UnsetType = UNSET


class Signature(Struct, frozen=True, kw_only=True):
    """A signature in hex, and by which key."""

    keyid: str
    sig: str


class _Envelope(Struct, frozen=True, kw_only=True):
    signatures: tuple[Signature, ...]
    signed: Any


SignedT = TypeVar("SignedT", Root, Timestamp, Snapshot, Targets)


class Unverified(Struct, Generic[SignedT], frozen=True, kw_only=True):
    """A whole file of metadata, and the bytes that its signatures are about."""

    signed: SignedT
    payload: bytes
    signatures: dict[str, bytes]


def parse(data: bytes, kind: type[SignedT], limit: int) -> Unverified[SignedT]:
    """A file of metadata of the given kind, from at most `limit` bytes.

    Raises:
        UpdateRefused: METADATA_TOO_LARGE, METADATA_MALFORMED or VERSION_TOO_HIGH.
    """
    if len(data) > limit:
        raise UpdateRefused(
            UpdateCode.METADATA_TOO_LARGE, f"{len(data)} bytes of metadata where {limit} may be."
        )
    envelope, signed = _typed(data, kind)
    if signed.version > HIGHEST_VERSION:
        raise UpdateRefused(
            UpdateCode.VERSION_TOO_HIGH, f"Nobody has made {signed.version} versions of it."
        )
    return Unverified(
        signed=signed,
        payload=canonical.encode(envelope.signed),
        signatures=_signatures(envelope.signatures),
    )


def _typed(data: bytes, kind: type[SignedT]) -> tuple[_Envelope, SignedT]:
    try:
        text = data.decode("utf-8")
        envelope = msgspec.json.decode(text, type=_Envelope)
        _check_depth(envelope.signed)
        signed: SignedT = msgspec.json.decode(msgspec.json.encode(envelope.signed), type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as error:
        raise UpdateRefused(
            UpdateCode.METADATA_MALFORMED, f"This isn't {kind.__name__.lower()} metadata: {error}"
        ) from error
    return envelope, signed


def _check_depth(value: object, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError("it's nested too deep")
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth + 1)


def _signatures(found: tuple[Signature, ...]) -> dict[str, bytes]:
    if len({signature.keyid for signature in found}) != len(found):
        raise UpdateRefused(UpdateCode.METADATA_MALFORMED, "A key has signed twice.")
    return {signature.keyid: _unhex(signature.sig) for signature in found}


def _unhex(text: str) -> bytes:
    """A signature that can't be one is as good as a wrong one: others may still suffice."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def moment(expires: str) -> datetime:
    """TUF's way to write a time, always in UTC."""
    return datetime.strptime(expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
