"""The update repository on a terminal and as JSON."""

from collections.abc import Sequence

from broker.core.update_views import RepositoryView, SignatureNeed, StagedRole
from broker.entry.cli.output import note, say, table
from broker.entry.cli.views import Json, shown_time

_SHORT = 16


def show_staged(staged: Sequence[StagedRole], *, whole: bool = False) -> None:
    """What will be signed, and by whom it still has to be; `whole` with what stays as it was."""
    for role in staged:
        say(f"{role.role} {role.version}, until {shown_time(role.expires)}")
        nothing = "no images yet" if role.version == 1 else "nothing but a later expiry"
        for line in role.changes or (nothing,):
            say(f"  {line}")
        if whole:
            for line in role.unchanged:
                say(f"  {line}")
            say(f"  sha256 of what is signed: {role.digest}")
        for need in role.needs:
            say(f"  signatures: {_state(need)}")
    if whole:
        return
    if all(role.is_complete for role in staged):
        note("Next: 'muster update publish'.")
    else:
        note("Next: 'muster update sign --key FILE', here or where the key is:")
        note("'muster update export-staging DIR', then there 'muster update sign --staging DIR'.")


def announce_published(view: RepositoryView) -> None:
    """What is in force now."""
    for role in view.roles:
        if role.role != "director":
            say(f"{role.role} {role.version}, until {shown_time(role.expires)}")
    note("Published. A running service has it on the fleet's broker within a minute.")


def missing_table(staged: Sequence[StagedRole]) -> None:
    """A line for each signature that could still be given."""
    rows = [
        (role.role, str(role.version), need.delegator, _state(need))
        for role in staged
        for need in role.needs
    ]
    rows += [
        (role.role, str(role.version), "-", "nobody delegates to it: stage it again")
        for role in staged
        if not role.needs
    ]
    table(("staged", "version", "keys of", "signatures"), rows, title="staged")


def staged_json(role: StagedRole) -> Json:
    """A staged role."""
    return {
        "role": role.role,
        "version": role.version,
        "expires": role.expires,
        "is_complete": role.is_complete,
        "changes": role.changes,
        "unchanged": role.unchanged,
        "digest": role.digest,
        "needs": [
            {
                "delegator": need.delegator,
                "threshold": need.threshold,
                "signed": need.signed,
                "unsigned": need.unsigned,
                "missing": need.missing,
            }
            for need in role.needs
        ],
    }


def _state(need: SignatureNeed) -> str:
    said = f"{len(need.signed)} of {need.threshold} by the keys of {need.delegator}"
    if not need.missing:
        return said
    who = ", ".join(keyid[:_SHORT] for keyid in need.unsigned)
    return f"{said}; {need.missing} missing, of {who}"
