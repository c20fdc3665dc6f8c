"""The claim bundle: the one file that a maker flashes on a batch of devices.

It holds the claim certificate with its private key, so whoever reads it can ask for membership:
keep it 0600, and give each batch one of its own.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from broker.protocol import codec, limits, names
from broker.protocol.messages import Endpoint, TrustBundle

HOST_PATTERN = r"^(\*\.)?[A-Za-z0-9_.:-]{1,253}\Z"
MAX_HOSTS = 64
HostPattern = Annotated[str, Meta(pattern=HOST_PATTERN)]
"""A host as it stands in URLs; `*.` before a name stands for all below it."""


@dataclass(frozen=True, kw_only=True)
class ClaimBundle:
    """Everything that `muster-device claim` needs to ask for a certificate."""

    version: Literal[1] = 1
    claim_name: Annotated[str, Meta(pattern=names.NAME_PATTERN)]
    certificate: str
    """The claim certificate in PEM."""
    private_key: str
    """Its key in PEM (PKCS#8, unencrypted: a device has nobody to type a passphrase)."""
    claim: Endpoint
    trust_bundle: TrustBundle
    update_root: str | None = None
    """The update repository's first root metadata (1.root.json); none where there are no updates.
    From it every later root is verified, so it never comes from the service at run time."""
    update_hosts: Annotated[tuple[HostPattern, ...], Meta(max_length=MAX_HOSTS)] = ()
    """Who may be asked for images besides the brokers' hosts: a device asks nobody else, whatever
    it is told at run time."""

    def __repr__(self) -> str:
        """Without the private key, so that no log or traceback ever holds it."""
        return f"ClaimBundle(claim_name={self.claim_name!r}, claim={self.claim!r})"


def write_bundle(bundle: ClaimBundle) -> bytes:
    """The bundle as the text of its file."""
    return codec.encode(bundle) + b"\n"


def read_bundle(text: bytes) -> ClaimBundle:
    """The bundle from its file's text, at most 64 KiB.

    Raises:
        Refused: PAYLOAD_TOO_LARGE, PAYLOAD_MALFORMED or FIELD_INVALID.
    """
    return codec.decode(text, ClaimBundle, limits.MAX_BUNDLE)
