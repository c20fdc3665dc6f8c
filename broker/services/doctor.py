"""What is wrong, or soon will be, with what the registry holds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from broker.core import claim_alarm
from broker.core.claim_alarm import ClaimAlarm
from broker.core.findings import Finding, Level
from broker.core.records import (
    ClaimCertificate,
    EnrollmentGroup,
    Event,
    EventKind,
    LockOut,
    Reprovision,
    Serials,
)
from broker.ports.clock import Clock
from broker.ports.registry import EventFilter, ReadTransaction, Registry, RegistryError

CLAIM_MARGIN: Final = timedelta(days=14)
"""A claim certificate is flashed long before it's used: warn while there's time for a new one."""

NEARLY_USED: Final = 0.9
ALARM_SHOWN: Final = timedelta(days=1)
LOCK_OUT_MARGIN: Final = timedelta(seconds=5)
LARGE_CRL: Final = 40_000
"""Lines: 0.6 s of CPU for a CRL, and 0.2 s for Mosquitto to read it, on one that has nothing else
to do. Beyond, a revocation isn't sure to be in force within a second."""
_WAITING_AT_MOST: Final = 10_000
CLOCK_MARGIN: Final = timedelta(minutes=5)


@dataclass(frozen=True)
class _Contents:
    claims: list[ClaimCertificate]
    groups: list[tuple[EnrollmentGroup, int]]
    newest_event: datetime | None
    alarms: list[Event]
    waiting: list[LockOut]
    expired: int
    """Members that only time keeps out."""


async def examine_registry(registry: Registry, clock: Clock) -> list[Finding]:
    """Whether the registry answers, and what its groups and claim certificates lead to."""
    now = clock.now()
    try:
        contents = await registry.read(lambda view: _load(view, now))
        lines = await registry.read(lambda view: len(view.revocations(now)))
    except RegistryError as error:
        return [registry_failed(error)]
    findings = [Finding(Level.OK, "registry", "registry", "answers, and its schema is current")]
    findings += _examine_clock(contents.newest_event, now)
    findings += _examine_alarms(contents.alarms, now)
    findings += _examine_lock_outs(contents.waiting, now)
    findings += _examine_crl_size(lines)
    findings += _examine_expired(contents.expired)
    for group, enrollments in contents.groups:
        findings += _examine_group(group, enrollments)
    listed = {name for group, _ in contents.groups for name in group.claim_certificates}
    for claim in contents.claims:
        findings += _examine_claim(claim, claim.name in listed, now)
    if not contents.groups:
        findings.append(_NO_GROUPS)
    return findings


def registry_failed(error: RegistryError) -> Finding:
    """The registry can't be used at all."""
    remedy = error.remedy or "See that the database runs and that registry.url is right."
    return Finding(Level.ERROR, "registry", "registry", f"{error} ({error.code})", remedy)


_NO_GROUPS: Final = Finding(
    Level.WARNING,
    "group",
    "groups",
    "There is none, so no device can claim.",
    "Write a group file and run 'muster group apply FILE'.",
)


def _load(view: ReadTransaction, now: datetime) -> _Contents:
    newest = view.events(EventFilter(limit=1))
    return _Contents(
        view.claim_certificates(),
        [(group, view.count_enrollments(group.name)) for group in view.groups()],
        newest[0].at if newest else None,
        view.events(EventFilter(kind=EventKind.CLAIM_CERTIFICATE_ALARM)),
        view.waiting_lock_outs(_WAITING_AT_MOST),
        view.count_expired(now),
    )


def _examine_clock(newest_event: datetime | None, now: datetime) -> Iterator[Finding]:
    if newest_event is not None and newest_event > now + CLOCK_MARGIN:
        yield Finding(
            Level.ERROR,
            "clock",
            "clock",
            f"This machine's clock says {now:%Y-%m-%d %H:%M}Z, but the registry holds an event of "
            f"{newest_event:%Y-%m-%d %H:%M}Z.",
            "Set the clock (NTP): certificates would be made for the wrong time.",
        )


def _examine_alarms(alarms: list[Event], now: datetime) -> Iterator[Finding]:
    recent = {
        event.claim_name: event
        for event in reversed(alarms)
        if event.code == ClaimAlarm.RATE_LIMITED and now - event.at < ALARM_SHOWN
    }
    for name, event in recent.items():
        yield Finding(
            Level.WARNING,
            "claim_certificate",
            name or "-",
            f"Claims with it came faster than allowed, last at {event.at:%Y-%m-%d %H:%M}Z.",
            f"See 'muster events --claim {name}'; if it leaked, 'muster claim-cert revoke {name}'.",
        )


def _examine_lock_outs(waiting: list[LockOut], now: datetime) -> Iterator[Finding]:
    late = [each for each in waiting if now - each.requested_at > LOCK_OUT_MARGIN]
    if late:
        yield Finding(
            Level.ERROR,
            "lock_out",
            "fleet broker",
            f"{len(late):,} acts on devices aren't in force on it yet, the oldest since "
            f"{late[0].requested_at:%Y-%m-%d %H:%M:%S}Z: {late[0].act} of {late[0].device_id}.",
            "Mend what else is an error here: the service, the fleet's broker, or a file in crl/. "
            "It is completed by itself then.",
        )


def _examine_crl_size(lines: int) -> Iterator[Finding]:
    if lines >= LARGE_CRL:
        yield Finding(
            Level.WARNING,
            "crl_size",
            "fleet broker",
            f"The fleet's CRL has {lines:,} lines, so a revocation may take longer than a second.",
            "A line stays until its certificate expires: shorten certificate_lifetime in the group "
            "files; it holds from each device's next renewal on.",
        )


def _examine_expired(expired: int) -> Iterator[Finding]:
    if expired:
        yield Finding(
            Level.WARNING,
            "expired",
            "devices",
            f"The certificates of {expired:,} members have expired: the fleet's broker refuses "
            "them.",
            "See 'muster devices list --expired'. They recover by themselves within their group's "
            "recover_within; later by 'muster devices approve-recovery ID' (docs/recovery.md).",
        )


def _examine_group(group: EnrollmentGroup, enrollments: int) -> Iterator[Finding]:
    find = _about("group", group.name)
    if group.serials is Serials.ANY:
        yield find(
            Level.WARNING,
            "OPEN TO ANY SERIAL NUMBER: whoever has a claim certificate of this group can make up "
            "devices until its quota is full.",
            "Import the serial numbers with 'muster enroll import' and set serials = \"listed\".",
        )
    elif enrollments == 0:
        yield find(
            Level.WARNING,
            "Its allow-list is empty, so no device can claim.",
            f"Import it with 'muster enroll import FILE --group {group.name}'.",
        )
    if group.reprovision is Reprovision.REPLACE:
        yield find(
            Level.WARNING,
            'reprovision = "replace": whoever has a claim certificate and a serial number can take '
            "the place of that device.",
            'Set reprovision = "refuse" or "same-key" once devices have been replaced.',
        )
    if not group.claim_certificates:
        yield find(
            Level.WARNING,
            "It lists no claim certificate, so no device can claim.",
            "Add one to claim_certificates in the group file and apply it.",
        )
    yield _examine_quota(group, find)


def _examine_quota(group: EnrollmentGroup, find: Callable[[Level, str, str], Finding]) -> Finding:
    members = f"{group.devices:,} of {group.quota:,} devices"
    raise_it = "Raise quota in the group file and apply it, if that many devices are genuine."
    if group.devices >= group.quota:
        return find(Level.WARNING, f"It is full: {members}.", raise_it)
    if group.devices >= NEARLY_USED * group.quota:
        return find(Level.WARNING, f"It is nearly full: {members}.", raise_it)
    return find(Level.OK, f"Holds {members}.", "")


def _examine_claim(claim: ClaimCertificate, is_listed: bool, now: datetime) -> Iterator[Finding]:
    find = _about("claim_certificate", claim.name)
    again = "Make a new one with 'muster claim-cert create' and list it in the group file."
    if claim.revoked_at is not None or now >= claim.not_after:
        if is_listed:
            word = "revoked" if claim.revoked_at is not None else "expired"
            yield find(Level.WARNING, f"It is {word}, and still listed by a group.", again)
        return
    used = f"{claim.claims:,} of {claim.max_claims:,} claims used"
    if not is_listed:
        yield find(
            Level.WARNING,
            "No group lists it, so it can't claim.",
            "Add it to claim_certificates in a group file, or revoke it.",
        )
    if claim.claims >= claim_alarm.NEARLY_USED * claim.max_claims:
        word = "exhausted" if claim.claims >= claim.max_claims else "nearly exhausted"
        leaked = f"Were all of them yours ('muster claim-cert show {claim.name}')? {again}"
        yield find(Level.WARNING, f"It is {word}: {used}.", leaked)
    if claim.not_after - now < CLAIM_MARGIN:
        yield find(Level.WARNING, f"It expires at {claim.not_after:%Y-%m-%d %H:%M}Z.", again)
    else:
        yield find(Level.OK, f"Good until {claim.not_after:%Y-%m-%d}; {used}.", "")


def _about(check: str, subject: str) -> Callable[[Level, str, str], Finding]:
    return lambda level, message, remedy: Finding(level, check, subject, message, remedy)
