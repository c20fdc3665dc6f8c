"""Records with every field filled in, so that a test names only those that it is about."""

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.core.keys import KeyType
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, ClaimCertificate, Device, EnrollmentGroup
from broker.protocol.names import (
    CertificateSerial,
    ClaimName,
    DeviceId,
    Fingerprint,
    GroupName,
    SerialNumber,
)

NOW = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)
CONFIRM_WITHIN = timedelta(minutes=15)

_CLAIM = ClaimCertificate(
    name=ClaimName("batch-7"),
    serial=CertificateSerial("c1"),
    not_before=NOW - timedelta(days=1),
    not_after=NOW + timedelta(days=1),
    max_claims=100,
)
_GROUP = EnrollmentGroup(
    name=GroupName("lamps"),
    claim_certificates=frozenset({ClaimName("batch-7")}),
    device_name="lamp-{serial}",
    allowed_keys=frozenset(KeyType),
    certificate_lifetime=timedelta(days=90),
    quota=100,
)
_DEVICE = Device(
    id=DeviceId("lamp-A1"),
    group=GroupName("lamps"),
    serial=SerialNumber("A1"),
    state=DeviceState.PENDING,
    registered_at=NOW - timedelta(hours=1),
)


def a_fingerprint(of: str) -> Fingerprint:
    """The fingerprint of the thing that a test calls `of`."""
    return Fingerprint(hashlib.sha256(of.encode()).hexdigest())


_CERTIFICATE = Certificate(
    serial=CertificateSerial("d1"),
    device_id=DeviceId("lamp-A1"),
    state=CertificateState.ISSUED,
    claim_name=ClaimName("batch-7"),
    key_sha256=a_fingerprint("key"),
    certificate_sha256=a_fingerprint("certificate"),
    not_before=NOW - timedelta(minutes=10),
    not_after=NOW + timedelta(days=90),
    pem="PEM",
    confirm_by=NOW + timedelta(minutes=5),
)


def a_claim_certificate(**changes: Any) -> ClaimCertificate:
    """`batch-7`, good for 100 claims and until tomorrow."""
    return replace(_CLAIM, **changes)


def a_group(**changes: Any) -> EnrollmentGroup:
    """`lamps` with the claim certificate `batch-7`: listed serial numbers, no second claims."""
    return replace(_GROUP, **changes)


def a_device(**changes: Any) -> Device:
    """`lamp-A1` with the serial number A1, pending."""
    return replace(_DEVICE, **changes)


def a_certificate(**changes: Any) -> Certificate:
    """`lamp-A1`'s certificate, issued but not proven."""
    return replace(_CERTIFICATE, **changes)
