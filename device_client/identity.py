"""Who this device is in the fleet, as stored in one slot of the keystore."""

import hashlib
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final

from cryptography.hazmat.primitives.serialization import Encoding
from msgspec import Meta

from broker.protocol import codec
from broker.protocol.codes import Refused
from broker.protocol.messages import Endpoint, Sha256, TrustBundle
from broker.protocol.names import (
    NAME_PATTERN,
    CertificateSerial,
    DeviceId,
    Fingerprint,
    SerialNumber,
)
from device_client import answers, durable, keys
from device_client.answers import Grant
from device_client.errors import AnswerInvalid, StateUnusable
from device_client.keys import PrivateKey

KEY_FILE: Final = "key.pem"
CHAIN_FILE: Final = "chain.pem"
TRUST_FILE: Final = "trust.pem"
RECORD_FILE: Final = "identity.json"


class Origin(StrEnum):
    """How a certificate was come by."""

    CLAIM = "claim"
    RENEWAL = "renewal"
    RECOVERY = "recovery"


class SlotCorrupt(Exception):
    """A slot isn't whole: a file is missing, cut short, or doesn't belong to the others."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A whole slot: the certificate is about the key beside it, and the files are as written."""

    directory: Path
    device_id: DeviceId
    serial: SerialNumber
    """The device's serial number that was claimed with."""
    certificate_serial: CertificateSerial
    certificate_sha256: Fingerprint
    key_sha256: Fingerprint
    not_before: datetime
    not_after: datetime
    fleet: Endpoint
    trust_bundle: TrustBundle
    confirmed_at: datetime | None
    """When the service accepted the proof of this certificate; none before."""
    origin: Origin = Origin.CLAIM
    order: int = 0
    """The version of the newest rotation order that this certificate follows; 0 for none."""

    @property
    def key_file(self) -> Path:
        """The private key in PEM."""
        return self.directory / KEY_FILE

    @property
    def chain_file(self) -> Path:
        """The device's certificate, then its issuers', in PEM."""
        return self.directory / CHAIN_FILE


@dataclass(frozen=True, kw_only=True)
class _Record:
    """`identity.json`: written last, so a slot that has it should be whole; the sums prove it."""

    device_id: Annotated[str, Meta(pattern=NAME_PATTERN)]
    serial: str
    fleet: Endpoint
    trust_version: int
    certificate_sha256: Sha256
    chain_sum: Sha256
    trust_sum: Sha256
    confirmed_at: datetime | None = None
    origin: Origin = Origin.CLAIM
    order: int = 0
    trust_root: str | None = None


def write_slot(
    directory: Path, grant: Grant, serial: SerialNumber, key_pem: str, origin: Origin
) -> None:
    """Fills the empty directory with the grant and its key, each file on the disk."""
    chain, trust = grant.chain.encode(), grant.trust_bundle.anchors.encode()
    record = _Record(
        device_id=grant.device_id,
        serial=serial,
        fleet=grant.fleet,
        trust_version=grant.trust_bundle.version,
        certificate_sha256=grant.certificate_sha256,
        chain_sum=_sum(chain),
        trust_sum=_sum(trust),
        origin=origin,
        order=grant.order,
        trust_root=grant.trust_bundle.root,
    )
    durable.create_file(directory / KEY_FILE, key_pem.encode())
    durable.create_file(directory / CHAIN_FILE, chain)
    durable.create_file(directory / TRUST_FILE, trust)
    durable.create_file(directory / RECORD_FILE, codec.encode(record))
    durable.sync_directory(directory)


def read_slot(directory: Path) -> Identity:
    """The identity in a slot.

    Raises:
        SlotCorrupt: the slot isn't whole.
        OSError: it can't be read for a reason that isn't its own fault.
    """
    try:
        return _read(directory)
    except (FileNotFoundError, NotADirectoryError, ValueError, Refused, AnswerInvalid) as error:
        raise SlotCorrupt(f"{directory.name}: {error}") from error


def read_key(directory: Path) -> str:
    """The private key alone, of a slot that may be corrupt otherwise.

    Raises:
        SlotCorrupt: the key isn't whole either.
    """
    try:
        pem = (directory / KEY_FILE).read_text("ascii")
        keys.from_pem(pem)
    except (OSError, ValueError) as error:
        raise SlotCorrupt(f"{directory.name}: {error}") from error
    return pem


def signing_key(identity: Identity) -> PrivateKey:
    """The identity's key, to sign a request with.

    Raises:
        StateUnusable: it can't be read.
    """
    try:
        return keys.from_pem(read_key(identity.directory))
    except SlotCorrupt as error:
        raise StateUnusable(
            f"The key to sign requests with can't be read: {error}",
            "Nothing is to be done while the certificate is being replaced.",
        ) from error


def leaf_pem(identity: Identity) -> str:
    """The certificate in PEM, without its issuers'."""
    leaf = answers.parse_chain(identity.chain_file.read_text("ascii"))[0]
    return leaf.public_bytes(Encoding.PEM).decode("ascii")


def record_confirmation(identity: Identity, at: datetime) -> None:
    """Notes in the slot, durably, that its certificate has been proven."""
    path = identity.directory / RECORD_FILE
    record = codec.decode(path.read_bytes(), _Record)
    confirmed = {**record.__dict__, "confirmed_at": at}
    durable.replace_file(path, codec.encode(_Record(**confirmed)))


def _read(directory: Path) -> Identity:
    record = codec.decode((directory / RECORD_FILE).read_bytes(), _Record)
    chain = (directory / CHAIN_FILE).read_bytes()
    trust = (directory / TRUST_FILE).read_bytes()
    if _sum(chain) != record.chain_sum or _sum(trust) != record.trust_sum:
        raise SlotCorrupt(f"{directory.name}: a file isn't as it was written")
    leaf = answers.parse_chain(chain.decode("ascii"))[0]
    key = keys.from_pem((directory / KEY_FILE).read_text("ascii"))
    key_sha256 = keys.fingerprint(key.public_key())
    if keys.fingerprint(leaf.public_key()) != key_sha256:
        raise SlotCorrupt(f"{directory.name}: the certificate isn't about the key")
    return Identity(
        directory=directory,
        device_id=DeviceId(record.device_id),
        serial=SerialNumber(record.serial),
        certificate_serial=CertificateSerial(f"{leaf.serial_number:x}"),
        certificate_sha256=answers.fingerprint(leaf),
        key_sha256=key_sha256,
        not_before=leaf.not_valid_before_utc,
        not_after=leaf.not_valid_after_utc,
        fleet=record.fleet,
        trust_bundle=TrustBundle(
            version=record.trust_version, anchors=trust.decode("ascii"), root=record.trust_root
        ),
        confirmed_at=record.confirmed_at,
        origin=record.origin,
        order=record.order,
    )


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
