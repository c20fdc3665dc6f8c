"""What devices and the service say to each other, field by field (docs/protocol.md).

Unknown fields are ignored, missing or wrong ones refused. Times are RFC 3339 in UTC.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Annotated

from msgspec import Meta

from broker.protocol import limits, names
from broker.protocol.codes import Code

RequestId = Annotated[str, Meta(min_length=1, max_length=limits.MAX_REQUEST_ID)]
Serial = Annotated[str, Meta(pattern=names.SERIAL_NUMBER_PATTERN)]
Csr = Annotated[str, Meta(min_length=1, max_length=limits.MAX_CSR)]
ParameterName = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,31}\Z")]
ParameterValue = Annotated[str, Meta(max_length=limits.MAX_PARAMETER_VALUE)]
Parameters = Annotated[dict[ParameterName, ParameterValue], Meta(max_length=limits.MAX_PARAMETERS)]
Sha256 = Annotated[str, Meta(pattern=names.FINGERPRINT_PATTERN)]
Port = Annotated[int, Meta(ge=1, le=65_535)]
Seconds = Annotated[int, Meta(ge=0, le=31_536_000)]
Signature = Annotated[
    str, Meta(min_length=1, max_length=limits.MAX_SIGNATURE, pattern=r"^[A-Za-z0-9+/]+={0,2}\Z")
]
"""Base64 (RFC 4648, section 4). ECDSA in DER with the hash of the curve's size (SHA-256, SHA-384);
Ed25519 plain; RSA as PKCS#1 v1.5 with SHA-256."""
Moment = Annotated[datetime, Meta(tz=True)]
"""Without a time zone it couldn't be compared with any clock."""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a broker listens; `host` is the name its certificate must carry."""

    host: Annotated[str, Meta(min_length=1, max_length=253)]
    port: Port


@dataclass(frozen=True, kw_only=True)
class TrustBundle:
    """The anchors by which a device authenticates brokers; a higher version replaces a lower."""

    version: Annotated[int, Meta(ge=1)]
    anchors: str
    """One or more CA certificates in PEM."""
    root: str | None = None
    """The root certificate in PEM, by whose key a successor of this bundle is signed."""


@dataclass(frozen=True, kw_only=True)
class EnrollRequest:
    """Claim zone, `enroll`: a device asks for its operational certificate."""

    request_id: RequestId
    serial: Serial
    csr: Csr
    """A PKCS#10 request in PEM (RFC 2986, RFC 7468)."""
    parameters: Parameters = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EnrollAccepted:
    """The answer: everything that the device needs to live in the fleet zone."""

    request_id: str
    device_id: str
    certificate_chain: str
    """The device's certificate, then its issuer's, in PEM."""
    not_after: Moment
    confirm_by: Moment | None
    """Until when the certificate must have been proven; none when it has been already."""
    fleet: Endpoint
    trust_bundle: TrustBundle


@dataclass(frozen=True, kw_only=True)
class RecoverRequest:
    """Claim zone, `recover`: a member whose certificate has expired asks for a new one.

    It proves who it is by the key of its last confirmed certificate; see `recovery_statement`.
    The answer is `EnrollAccepted`.
    """

    request_id: RequestId
    csr: Csr
    certificate: Annotated[str, Meta(min_length=1, max_length=limits.MAX_CERTIFICATE)]
    """The last certificate in PEM, without its issuer's."""
    signature: Signature
    """Over `recovery_statement`, by the key of `certificate`."""


@dataclass(frozen=True, kw_only=True)
class RenewRequest:
    """Fleet zone, `renew`: a member asks for its next certificate. The answer is `EnrollAccepted`.

    The connection says under which name. The signature proves which of the name's keys asks: a
    broker may have let a key in that has been superseded or revoked since.
    """

    request_id: RequestId
    csr: Csr
    signature: Signature
    """Over `renewal_statement`, by the key of the certificate in use."""
    order: Annotated[int, Meta(ge=1, le=limits.MAX_COUNTER)] | None = None
    """The version of the `RotationOrder` that is followed; none when the time has come anyway."""


@dataclass(frozen=True, kw_only=True)
class RotationOrder:
    """Retained under `desired/rotation`: the device is to renew its certificate.

    An order that has been followed (a certificate confirmed that was asked for with its version, or
    a later one) stays retained and means nothing more.
    """

    version: Annotated[int, Meta(ge=1)]
    """Rises with each order for this device."""
    renew_by: Moment
    """Spread the renewal over the time that is left; what is past means now."""
    ordered_at: Moment | None = None
    """When it was given. Spread the renewal over no longer than from then to `renew_by`: a device
    whose clock is behind may take the time that is left for longer. None from earlier services."""


@dataclass(frozen=True, kw_only=True)
class SignedTrustBundle:
    """Retained at `TRUST_BUNDLE`: a bundle that replaces an older one, signed by the root."""

    bundle: Annotated[str, Meta(min_length=1, max_length=limits.MAX_ANSWER)]
    """A `TrustBundle` as JSON text; signed is `trust_bundle_statement` of this text."""
    signature: Signature
    """By the key of the root certificate that the device trusts already."""


@dataclass(frozen=True, kw_only=True)
class ConfirmRequest:
    """Fleet zone, `confirm`: the device proves its certificate, having connected with it.

    The broker says the name only; the signature says which of the name's keys has come.
    """

    request_id: RequestId
    certificate_sha256: Sha256
    """SHA-256 of the certificate in DER."""
    signature: Signature
    """Over `confirmation_statement`, by the key of that certificate."""


@dataclass(frozen=True, kw_only=True)
class ConfirmAccepted:
    """The device is a member of the fleet."""

    request_id: str
    device_id: str
    certificate_sha256: str
    not_after: Moment


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Any operation's refusal. `request_id` is null when the request's couldn't be read.

    The code is text here, so that an older device can read a code that it doesn't know.
    """

    request_id: str | None
    code: str
    message: str
    remedy: str
    retry_after_s: Seconds | None = None

    @property
    def known_code(self) -> Code | None:
        """The code as one of `Code`, or none when it's newer than this program."""
        try:
            return Code(self.code)
        except ValueError:
            return None
