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
    claim = usable_claim(context.claim, now)
    group = context.group
    if group is None:
        raise Refused(Code.CLAIM_WITHOUT_GROUP)
    retry_after_s = ceil(confirm_within.total_seconds())
    if asked.csr.key_type not in group.allowed_keys:
        allowed = ", ".join(sorted(group.allowed_keys))
        raise Refused(Code.KEY_NOT_ALLOWED, f"This group allows keys of type {allowed}.")
    _check_key_owner(context)
    derived = derive_name(parse_template(group.device_name), asked.serial, asked.parameters)
    _check_requested_names(context, asked, derived)
    repeated = _repeated(context, now)
    if repeated is not None:
        return repeated
    is_new = context.device is None or context.device.state is DeviceState.REGISTERED
    _check_allowances(claim, group, context, asked, is_new)
    refusal = _serial_refusal(context, group, asked)
    if refusal is not None:
        raise Refused(refusal, retry_after_s=retry_after_s)
    name = context.device.id if context.device else derived
    lapsed = tuple(c for c in context.certificates if c.state is CertificateState.ISSUED)
    return Issue(group, name, group.certificate_lifetime, is_new, lapsed)


def usable_claim(claim: ClaimCertificate | None, now: datetime) -> ClaimCertificate:
    """The claim certificate, if it may ask at all.

    Raises:
        Refused: CLAIM_UNKNOWN, CLAIM_REVOKED or CLAIM_EXPIRED.
    """
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


def _check_requested_names(context: ClaimContext, asked: AskedClaim, derived: DeviceId) -> None:
    """A device keeps the name it has, even when the group's template has changed since.

    The template is applied to everybody, and the name a device really has counts only for who
    holds a key of its: else a thief could tell free serial numbers from claimed ones, and guess at
    names, without claiming any.
    """
    allowed = {asked.serial, derived, ""}
    if context.device is not None and context.key_certificate is not None:
        allowed.add(context.device.id)
    if asked.csr.names - allowed:
        raise Refused(Code.CSR_NAME_MISMATCH)


def _repeated(context: ClaimContext, now: datetime) -> Repeat | None:
    own = context.key_certificate
    if context.device is None or own is None or _standing_refusal(context) is not None:
        return None
    if own.state in _REPEATABLE and own.is_live(now):
        return Repeat(context.device, own)
    return None


def _check_allowances(
    claim: ClaimCertificate,
    group: EnrollmentGroup,
    context: ClaimContext,
    asked: AskedClaim,
    is_new: bool,
) -> None:
    """Before the serial number is looked at: with allowances used up, free serial numbers must be
    refused like the others, or whoever may claim no more could still list them."""
    if claim.claims >= claim.max_claims:
        raise Refused(Code.CLAIM_EXHAUSTED)
    is_refused = _serial_refusal(context, group, asked) is not None
    if group.devices >= group.quota and (is_new or is_refused):
        raise Refused(Code.GROUP_FULL)


def _serial_refusal(
    context: ClaimContext, group: EnrollmentGroup, asked: AskedClaim
) -> Code | None:
    """Why the serial number is refused to this key; none when it isn't."""
    standing = _standing_refusal(context)
    if standing is not None:
        return standing
    device = context.device
    if device is None or device.state is DeviceState.REGISTERED:
        return None
    if group.reprovision is Reprovision.REPLACE:
        return None
    same_key = any(
        c.key_sha256 == asked.csr.key_sha256 and c.state is not CertificateState.SUPERSEDED
        for c in context.certificates
    )
    if group.reprovision is Reprovision.SAME_KEY and same_key:
        return None
    return Code.SERIAL_TAKEN


def _standing_refusal(context: ClaimContext) -> Code | None:
    """Why the serial number is refused to every key; none when it isn't."""
    if context.device is not None and context.device.state in _BLOCKED:
        return Code.DEVICE_BLOCKED
    listed = context.group is not None and context.group.serials is Serials.LISTED
    return Code.SERIAL_UNKNOWN if listed and not context.enrolled else None
