"""Applying group files: what would change, and changing it in one transaction with its audit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.core.durations import format_duration
from broker.core.records import EnrollmentGroup, Event, EventKind
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry, WriteTransaction
from broker.services.problems import Problem, ProblemCode


@dataclass(frozen=True)
class FieldChange:
    """One field as it was (none for a new group) and as it will be, as an operator writes it."""

    field: str
    before: str | None
    after: str


@dataclass(frozen=True)
class GroupChange:
    """What applying a file does to one group; without fields it's as the file wants it."""

    group: EnrollmentGroup
    is_new: bool
    fields: tuple[FieldChange, ...]


async def plan(registry: Registry, wanted: Sequence[EnrollmentGroup]) -> list[GroupChange]:
    """What `apply` would change, group by group.

    Raises:
        Problem: as `apply` does.
    """
    return await registry.read(lambda view: _changes(view, wanted))


async def apply(
    registry: Registry, clock: Clock, wanted: Sequence[EnrollmentGroup]
) -> list[GroupChange]:
    """Makes the groups what `wanted` says, all or none; groups that it doesn't name stay.

    Applying the same again changes nothing and writes no event.

    Raises:
        Problem: CLAIM_CERTIFICATE_UNKNOWN.
        RegistryConflict: a group that isn't in `wanted` lists one of the claim certificates.
    """

    now, planned = clock.now(), await plan(registry, wanted)

    def work(view: WriteTransaction) -> list[GroupChange]:
        changes = _changes(view, wanted)
        changed = [change for change in changes if change.fields]
        _release_claims(view, changed)
        for change in changed:
            view.save_group(change.group)
            view.add_event(
                Event(
                    now,
                    EventKind.GROUP_APPLIED,
                    group=change.group.name,
                    detail=describe(change),
                )
            )
        # Run again after its own commit, it has nothing left to change.
        return changes if changed else planned

    return await registry.write(work)


def describe(change: GroupChange) -> str:
    """The change in one line, for the audit log."""
    fields = (
        f"{field.field}={field.after}" if change.is_new else _arrow(field)
        for field in change.fields
    )
    return "; ".join(fields)


def written(group: EnrollmentGroup) -> dict[str, str]:
    """The group's fields in the words of a group file."""
    return {
        "claim_certificates": ", ".join(sorted(group.claim_certificates)) or "(none)",
        "device_name": group.device_name,
        "allowed_keys": ", ".join(sorted(group.allowed_keys)),
        "certificate_lifetime": format_duration(group.certificate_lifetime),
        "quota": str(group.quota),
        "serials": group.serials.value,
        "reprovision": group.reprovision.value,
        "rotation_key": group.rotation_key.value,
        "rotation_grace": format_duration(group.rotation_grace),
        "recover_within": format_duration(group.recover_within),
    }


def _arrow(field: FieldChange) -> str:
    return f"{field.field}: {field.before} -> {field.after}"


def _changes(view: ReadTransaction, wanted: Sequence[EnrollmentGroup]) -> list[GroupChange]:
    known = {claim.name for claim in view.claim_certificates()}
    for group in wanted:
        missing = sorted(group.claim_certificates - known)
        if missing:
            raise Problem(
                ProblemCode.CLAIM_CERTIFICATE_UNKNOWN,
                f"Group {group.name} lists a claim certificate that doesn't exist: {missing[0]}.",
                f"Make it with 'muster claim-cert create {missing[0]} …', or take it off the list.",
            )
    return [_change(view.group(group.name), group) for group in wanted]


def _change(current: EnrollmentGroup | None, wanted: EnrollmentGroup) -> GroupChange:
    before = written(current) if current else {}
    fields = tuple(
        FieldChange(name, before.get(name), value)
        for name, value in written(wanted).items()
        if before.get(name) != value
    )
    return GroupChange(wanted, current is None, fields)


def _release_claims(view: WriteTransaction, changed: Sequence[GroupChange]) -> None:
    """Takes claim certificates off their groups first, so that two groups can trade them."""
    for change in changed:
        current = view.group(change.group.name)
        if current is None:
            continue
        kept = current.claim_certificates & change.group.claim_certificates
        if kept != current.claim_certificates:
            view.save_group(replace(current, claim_certificates=kept))
