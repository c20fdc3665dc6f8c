"""Whether a claim is granted, and as what. Deny by default: each grant passes every check below.

The order of the checks is part of the contract. A claim certificate that may not ask learns nothing
else; the same key gets the same answer before any allowance is counted, so that a device which lost
power after its claim can always ask again.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from broker.core.csr import VerifiedCsr
from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.naming import derive_name, parse_template
from broker.core.records import (
    Certificate,
    ClaimCertificate,
    Device,
    EnrollmentGroup,
    Reprovision,
    RevocationReason,
    Serials,
)
from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId, SerialNumber

_BLOCKED = {DeviceState.SUSPENDED, DeviceState.REVOKED, DeviceState.RETIRED}
_REPEATABLE = {CertificateState.ISSUED, CertificateState.ACTIVE}


@dataclass(frozen=True)
class ClaimContext:
    """Everything the registry knows that bears on one claim, read in one transaction."""

    claim: ClaimCertificate | None
    group: EnrollmentGroup | None
    """The group that lists the claim certificate."""
    enrolled: bool
    """Whether the serial number is on the group's allow-list."""
    device: Device | None
    """The device in the group that has the serial number."""
    certificates: tuple[Certificate, ...]
    """That device's certificates that aren't revoked, oldest first."""
    key_certificate: Certificate | None
    """The newest certificate that was ever issued for the public key."""


@dataclass(frozen=True)
class AskedClaim:
    """What the device asks for, with its CSR verified."""

    serial: SerialNumber
    csr: VerifiedCsr
    parameters: dict[str, str]


@dataclass(frozen=True)
class Repeat:
    """The key has a live certificate: it gets the same one again."""

    device: Device
    certificate: Certificate


@dataclass(frozen=True)
class Issue:
    """A new certificate is to be issued."""

    group: EnrollmentGroup
    device_id: DeviceId
    lifetime: timedelta
    is_new_member: bool
    """Whether the device counts towards the group's quota only from now on."""
    lapsed: tuple[Certificate, ...]
    """Unproven certificates that this one takes the place of; to be revoked at once."""


def decide_claim(
    context: ClaimContext, asked: AskedClaim, now: datetime, confirm_within: timedelta
) -> Issue | Repeat:
    """What becomes of the claim.

    Args:
        context: what the registry knows.
        asked: what the device asks for.
        now: the calendar time.
        confirm_within: how long an unproven certificate stands; where waiting may help, the
            device is told to come back after this long.

    Raises:
        Refused: with the exact code of the first check that fails.
    """
    claim = _usable_claim(context.claim, now)
    group = context.group
    if group is None:
        raise Refused(Code.CLAIM_WITHOUT_GROUP)
    retry_after_s = ceil(confirm_within.total_seconds())
    if asked.csr.key_type not in group.allowed_keys:
        allowed = ", ".join(sorted(group.allowed_keys))
        raise Refused(Code.KEY_NOT_ALLOWED, f"This group allows keys of type {allowed}.")
    _check_key_owner(context)
    name = _name(context.device, group, asked)
    _check_requested_names(asked, name)
    _check_serial(context, retry_after_s)
    repeated = _repeated(context, now)
    if repeated is not None:
        return repeated
    _check_holder(context, group, asked, retry_after_s)
    is_new = context.device is None or context.device.state is DeviceState.REGISTERED
    lapsed = tuple(c for c in context.certificates if c.state is CertificateState.ISSUED)
    _check_allowances(claim, group, is_new, len(lapsed))
    return Issue(group, name, group.certificate_lifetime, is_new, lapsed)


def _usable_claim(claim: ClaimCertificate | None, now: datetime) -> ClaimCertificate:
    if claim is None:
        raise Refused(Code.CLAIM_UNKNOWN)
    if claim.revoked_at is not None:
        raise Refused(Code.CLAIM_REVOKED)
    if now >= claim.not_after:
        raise Refused(Code.CLAIM_EXPIRED)
    return claim


def _check_key_owner(context: ClaimContext) -> None:
    owner = context.key_certificate
    if owner is None:
        return
    if context.device is None or owner.device_id != context.device.id:
        raise Refused(Code.KEY_IN_USE)
    if _is_barred(owner, context.device):
        raise Refused(Code.KEY_IN_USE, "This key's certificate was revoked; make a fresh key.")


def _is_barred(owner: Certificate, device: Device) -> bool:
    """Whether an operator's revocation took the key with it, from this device too.

    One that an operator reclaimed begins anew: none of the keys that it ever proved counts. A
    claim that lapsed is no such thing.
    """
    if owner.revoked_for is RevocationReason.OPERATOR:
        return True
    begins_anew = device.state is DeviceState.REGISTERED
    lapsed = owner.revoked_for in (None, RevocationReason.NEVER_CONFIRMED)
    return begins_anew and not lapsed


def _name(device: Device | None, group: EnrollmentGroup, asked: AskedClaim) -> DeviceId:
    """A device keeps the name it has, even when the group's template has changed since.

    The template is applied all the same: if a missing parameter were refused for free serial
    numbers only, a thief could tell those from claimed ones without claiming any.
    """
    derived = derive_name(parse_template(group.device_name), asked.serial, asked.parameters)
    return derived if device is None else device.id


def _check_requested_names(asked: AskedClaim, name: DeviceId) -> None:
    if asked.csr.names - {asked.serial, name, ""}:
        raise Refused(Code.CSR_NAME_MISMATCH)


def _check_serial(context: ClaimContext, retry_after_s: int) -> None:
    if context.device is not None and context.device.state in _BLOCKED:
        raise Refused(Code.DEVICE_BLOCKED, retry_after_s=retry_after_s)
    listed = context.group is not None and context.group.serials is Serials.LISTED
    if listed and not context.enrolled:
        raise Refused(Code.SERIAL_UNKNOWN, retry_after_s=retry_after_s)


def _repeated(context: ClaimContext, now: datetime) -> Repeat | None:
    own = context.key_certificate
    if context.device is None or own is None:
        return None
    if own.state in _REPEATABLE and own.is_live(now):
        return Repeat(context.device, own)
    return None


def _check_holder(
    context: ClaimContext, group: EnrollmentGroup, asked: AskedClaim, retry_after_s: int
) -> None:
    """Whether this key may have a certificate for a serial number that has a device already."""
    device = context.device
    if device is None or device.state is DeviceState.REGISTERED:
        return
    if group.reprovision is Reprovision.REPLACE:
        return
    same_key = any(c.key_sha256 == asked.csr.key_sha256 for c in context.certificates)
    if group.reprovision is Reprovision.SAME_KEY and same_key:
        return
    raise Refused(Code.SERIAL_TAKEN, retry_after_s=retry_after_s)


def _check_allowances(
    claim: ClaimCertificate, group: EnrollmentGroup, is_new: bool, given_back: int
) -> None:
    if claim.claims - given_back >= claim.max_claims:
        raise Refused(Code.CLAIM_EXHAUSTED)
    if is_new and group.devices >= group.quota:
        raise Refused(Code.GROUP_FULL)
