"""Names that travel in topics and certificates, and the one rule they obey.

A name is set by the issuer and never copied from a CSR. It holds nothing that has a meaning in a
topic, a log line or a shell, so `a/x` + `q` can't be mistaken for `a` + `x/q`.
"""

import re
from typing import Final, NewType

ClaimName = NewType("ClaimName", str)
ClientId = NewType("ClientId", str)
DeviceId = NewType("DeviceId", str)
GroupName = NewType("GroupName", str)
SerialNumber = NewType("SerialNumber", str)
"""The number the maker printed on the device, not a certificate's serial."""
CertificateSerial = NewType("CertificateSerial", str)
"""A certificate's serial number: lower-case hexadecimal without leading zeros."""
Fingerprint = NewType("Fingerprint", str)
"""SHA-256 over DER (a certificate, or a SubjectPublicKeyInfo): 64 lower-case hex digits."""

NAME_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}\Z"
SERIAL_NUMBER_PATTERN: Final = r"^[A-Za-z0-9_.:-]{1,64}\Z"
FINGERPRINT_PATTERN: Final = r"^[0-9a-f]{64}\Z"
RESERVED_PREFIX: Final = "muster-"
"""Names of the service itself begin so; nobody else is ever issued one."""

_NAME = re.compile(NAME_PATTERN)


def is_name(text: str) -> bool:
    """Whether `text` may stand in a topic as a claim, client, device or group name."""
    return _NAME.match(text) is not None


def is_issuable(text: str) -> bool:
    """Whether a certificate may carry `text` as its name: a name, and not a reserved one."""
    return is_name(text) and not text.lower().startswith(RESERVED_PREFIX)
