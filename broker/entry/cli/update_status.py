"""`muster update status`: who may sign, until when, what waits, and what is published."""

import typer

from broker.core.update_views import RepositoryView, RoleView, TargetView
from broker.entry.cli.options import JsonOption
from broker.entry.cli.output import emit, note, table
from broker.entry.cli.update_options import update_desk_of
from broker.entry.cli.update_shown import missing_table, staged_json
from broker.entry.cli.views import Json, shown_time

_SHORT = 16


def status(context: typer.Context, as_json: JsonOption = False) -> None:
    """The roles with their keys and expiries, what is staged, and the published images."""
    show_repository(update_desk_of(context).view(), as_json=as_json)


def show_repository(view: RepositoryView, *, as_json: bool) -> None:
    """The repository's part; as JSON one object with the member `repository`."""
    if as_json:
        emit({"repository": repository_json(view)})
        return
    table(
        ("role", "version", "expires", "signed by", ""),
        [_role_row(role) for role in view.roles],
        title="roles",
    )
    if view.staged:
        missing_table(view.staged)
    table(
        ("target", "component", "version", "counter", "hardware", "supported until"),
        [_target_row(target) for target in view.targets],
        title="published images",
    )
    _advise(view)


def repository_json(view: RepositoryView) -> Json:
    """The whole view."""
    return {
        "roles": list(view.roles),
        "staged": [staged_json(role) for role in view.staged],
        "targets": list(view.targets),
    }


def _role_row(role: RoleView) -> tuple[str, ...]:
    keys = ", ".join(keyid[:_SHORT] for keyid in role.keyids)
    return (
        role.role,
        str(role.version),
        shown_time(role.expires),
        f"{role.threshold} of {keys}",
        "warning" if role.is_lapsing else "ok",
    )


def _target_row(target: TargetView) -> tuple[str, ...]:
    facts = target.facts
    support = "-" if facts.support_until is None else f"{facts.support_until:%Y-%m-%d}"
    if target.support in ("ended", "ending"):
        support = f"{support} {'ENDED' if target.support == 'ended' else 'ends soon'}"
    return (
        target.path,
        facts.component,
        facts.version,
        str(facts.security_counter),
        ", ".join(facts.hw_revs) or "all",
        support,
    )


def _advise(view: RepositoryView) -> None:
    if not view.roles:
        note("Nothing is published yet.")
    for role in view.roles:
        if role.is_lapsing and role.role != "director":
            how = {
                "root": "'muster update rotate-root', then sign and publish",
                "snapshot": "see that the service runs",
                "timestamp": "see that the service runs",
            }.get(role.role, "'muster update renew', then sign and publish")
            note(f"{role.role} expires at {shown_time(role.expires)}: {how}.", "yellow")
    for target in view.targets:
        if target.support == "ended":
            contact = target.facts.vulnerability_contact
            said = f"; weaknesses: {contact}" if contact else ""
            note(f"Support of {target.path} has ended{said}.", "yellow")
    if view.staged:
        note("'muster update sign' shows what is staged in full before it signs.")
