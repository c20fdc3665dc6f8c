"""The registry's records as the commands show them; the JSON's members never change their meaning.

Times are RFC 3339 in UTC, durations as in a group file, and what isn't there is null.
"""

from collections.abc import Iterable
from datetime import datetime

from broker.core.campaign import Campaign, Rotation
from broker.core.durations import format_duration
from broker.core.records import (
    Certificate,
    ClaimCertificate,
    Device,
    Enrollment,
    EnrollmentGroup,
    Event,
    LockOut,
)
from broker.protocol.names import GroupName
from broker.services.ca_rollover import Standing
from broker.services.device_acts import Acted, Effect
from broker.services.groups import GroupChange
from broker.services.lock_out import milliseconds

Json = dict[str, object]


def claim_state(claim: ClaimCertificate, now: datetime) -> str:
    """Whether devices can claim with it: `active`, or why not."""
    if claim.revoked_at is not None:
        return "revoked"
    if now >= claim.not_after:
        return "expired"
    return "exhausted" if claim.claims >= claim.max_claims else "active"


def claim_json(claim: ClaimCertificate, group: GroupName | None, now: datetime) -> Json:
    """A claim certificate."""
    return {
        "name": claim.name,
        "state": claim_state(claim, now),
        "group": group,
        "claims": claim.claims,
        "max_claims": claim.max_claims,
        "not_before": claim.not_before,
        "not_after": claim.not_after,
        "revoked_at": claim.revoked_at,
        "certificate_serial": claim.serial,
    }


def group_json(group: EnrollmentGroup, enrollments: int) -> Json:
    """An enrollment group, with how long its allow-list is."""
    return {
        "name": group.name,
        "claim_certificates": sorted(group.claim_certificates),
        "device_name": group.device_name,
        "allowed_keys": sorted(group.allowed_keys),
        "certificate_lifetime": format_duration(group.certificate_lifetime),
        "quota": group.quota,
        "devices": group.devices,
        "serials": group.serials,
        "enrollments": enrollments,
        "reprovision": group.reprovision,
        "rotation_key": group.rotation_key,
        "rotation_grace": format_duration(group.rotation_grace),
        "recover_within": format_duration(group.recover_within),
    }


def change_json(change: GroupChange, *, dry_run: bool) -> Json:
    """What applying a group file changes, or would change, in one group."""
    return {
        "name": change.group.name,
        "dry_run": dry_run,
        "new": change.is_new,
        "changed": {
            each.field: {"before": each.before, "after": each.after} for each in change.fields
        },
    }


def enrollment_json(line: Enrollment) -> Json:
    """One line of an allow-list."""
    return {"group": line.group, "serial": line.serial, "imported_at": line.imported_at}


def device_json(device: Device) -> Json:
    """A device, without its certificates."""
    return {
        "id": device.id,
        "state": device.state,
        "group": device.group,
        "serial": device.serial,
        "parameters": device.parameters,
        "registered_at": device.registered_at,
        "activated_at": device.activated_at,
    }


def let_in_until(certificates: Iterable[Certificate], now: datetime) -> datetime | None:
    """When the last of those ends that let their device in now; none when there is none."""
    ends = [
        min(each.not_after, each.grace_until or each.not_after)
        for each in certificates
        if each.is_live(now)
    ]
    return max(ends, default=None)


def certificate_json(certificate: Certificate, now: datetime) -> Json:
    """An operational certificate; its PEM is public, but long, and so left out."""
    return {
        "certificate_serial": certificate.serial,
        "state": certificate.state,
        "expired": now >= certificate.not_after,
        "claim_name": certificate.claim_name,
        "certificate_sha256": certificate.certificate_sha256,
        "key_sha256": certificate.key_sha256,
        "not_before": certificate.not_before,
        "not_after": certificate.not_after,
        "confirm_by": certificate.confirm_by,
        "confirmed_at": certificate.confirmed_at,
        "revoked_at": certificate.revoked_at,
        "revoked_for": certificate.revoked_for,
        "held_at": certificate.held_at,
        "grace_until": certificate.grace_until,
        "rotation_order": certificate.rotation_order,
        "recovery_approved_until": certificate.recovery_approved_until,
        "authority": certificate.generation,
    }


def acted_effect(acted: Acted, *, dry_run: bool) -> str:
    """What became of an act on one device; of a dry run's, what would become of it."""
    return "would_be_done" if dry_run and acted.effect is Effect.DONE else acted.effect.value


def acted_json(acted: Acted, *, dry_run: bool) -> Json:
    """What became of an act on one device, and how far a broker is with it."""
    lock_out = acted.lock_out
    return {
        "device_id": acted.device_id,
        "dry_run": dry_run,
        "effect": acted_effect(acted, dry_run=dry_run),
        "before": acted.before,
        "after": acted.after,
        "certificates": acted.certificates,
        "lock_out": None if lock_out is None else lock_out_json(lock_out),
    }


def lock_out_json(lock_out: LockOut) -> Json:
    """What the fleet's broker owes to an act, in milliseconds since it was asked for."""
    return {
        "id": lock_out.id,
        "act": lock_out.act,
        "reason": lock_out.reason,
        "requested_at": lock_out.requested_at,
        "crl_ms": milliseconds(lock_out, lock_out.crl_at),
        "disconnected_ms": milliseconds(lock_out, lock_out.disconnected_at),
        "complete": lock_out.is_complete,
        "ended_at": lock_out.ended_at,
    }


def campaign_json(campaign: Campaign) -> Json:
    """A rotation campaign and how far it is."""
    return {
        "id": campaign.id,
        "state": campaign.state,
        "selected_by": campaign.selection.kind,
        "selected": campaign.selection.name,
        "reason": campaign.reason,
        "per_minute": campaign.per_minute,
        "wave_size": campaign.wave_size,
        "wave": campaign.wave,
        "listed": campaign.is_listed,
        "total": campaign.total,
        "waiting": campaign.waiting,
        "ordered": campaign.ordered,
        "done": campaign.done,
        "dropped": campaign.dropped,
        "withdrawn": campaign.withdrawn,
        "created_at": campaign.created_at,
        "ended_at": campaign.ended_at,
    }


def rollover_json(standing: Standing) -> Json:
    """How far the operational authority's replacement is."""
    rollover = standing.rollover
    if rollover is None:
        return {"phase": None}
    campaign = standing.campaign
    return {
        "phase": rollover.phase,
        "old": rollover.old,
        "new": rollover.new,
        "cancelled": rollover.is_return,
        "moved": standing.moved,
        "left": standing.left,
        "left_names": standing.left_names,
        "campaign": None if campaign is None else campaign_json(campaign),
        "started_at": rollover.started_at,
    }


def rotation_json(rotation: Rotation) -> Json:
    """One device of a campaign."""
    return {
        "device_id": rotation.device_id,
        "state": rotation.state,
        "order": rotation.version,
        "ordered_at": rotation.ordered_at,
        "settled_at": rotation.settled_at,
    }


def event_json(event: Event) -> Json:
    """A line of the audit log."""
    return {
        "id": event.id,
        "at": event.at,
        "kind": event.kind,
        "device_id": event.device_id,
        "serial": event.serial_number,
        "claim_name": event.claim_name,
        "client_id": event.client_id,
        "group": event.group,
        "code": event.code,
        "detail": event.detail,
        "repeated": event.repeated,
    }


def shown_time(moment: datetime | None) -> str:
    """The moment in UTC to the second, for a person."""
    return "-" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")
