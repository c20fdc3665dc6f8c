"""`muster update status`: who may sign, until when, what waits, and what is published."""

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import typer

from broker.core.update_views import RepositoryView, RoleView, TargetView
from broker.entry.cli.options import JsonOption, common, with_registry, with_registry_watched
from broker.entry.cli.output import counted, emit, note, table
from broker.entry.cli.rollout_shown import conclude, rollout_json, show_rollouts, watch
from broker.entry.cli.update_shown import missing_table, staged_json
from broker.entry.cli.views import Json, shown_time
from broker.operating.updating import update_desk
from broker.ports.registry import Registry
from broker.services import rollouts
from broker.services.problems import Problem, ProblemCode
from broker.services.rollouts import RolloutView

_SHORT = 16


def status(
    context: typer.Context,
    watch_: Annotated[
        bool, typer.Option("--watch", help="Stay with the newest rollout until it has ended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """The roles with their keys and expiries, what is staged, the published images, and what is
    being rolled out."""
    installation = common(context).installation()
    if watch_:
        conclude(
            with_registry_watched(installation, lambda registry: _watch_newest(registry, as_json))
        )
        return
    view = update_desk(installation.home, lambda: installation.passphrase).view()
    now = installation.clock.now()
    fleet = with_registry(installation, lambda registry: _fleet(registry, now))
    if as_json:
        emit({"repository": repository_json(view), **_fleet_json(fleet)})
        return
    show_repository(view)
    _show_fleet(fleet)


@dataclass(frozen=True)
class _Fleet:
    """What the fleet makes of the repository."""

    moving: list[RolloutView]
    unsupported: int
    """Devices that run something whose support has ended."""


async def _fleet(registry: Registry, now: datetime) -> _Fleet:
    moving = await rollouts.moving(registry)
    return _Fleet(moving, await registry.read(lambda view: view.count_unsupported(now)))


async def _watch_newest(registry: Registry, as_json: bool) -> RolloutView:
    found = await rollouts.newest(registry, 1)
    if not found:
        raise Problem(
            ProblemCode.ROLLOUT_UNKNOWN,
            "There is no rollout to watch.",
            "Start one with 'muster update push'.",
        )
    return await watch(registry, found[0].rollout.name, as_json=as_json)


def _fleet_json(fleet: _Fleet) -> Json:
    return {
        "rollouts": [rollout_json(view) for view in fleet.moving],
        "unsupported_devices": fleet.unsupported,
    }


def _show_fleet(fleet: _Fleet) -> None:
    if fleet.moving:
        show_rollouts(fleet.moving, title="being rolled out")
    if fleet.unsupported:
        note(
            f"Whose software's support has ended: {counted(fleet.unsupported, 'device')}; see "
            "'muster devices list --unsupported'.",
            "yellow",
        )


def show_repository(view: RepositoryView) -> None:
    """The repository's part."""
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
        _level(role),
    )


def _level(role: RoleView) -> str:
    if role.is_expired:
        return "error"
    return "warning" if role.is_lapsing else "ok"


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
            at = shown_time(role.expires)
            if role.is_expired:
                said = f"{role.role} EXPIRED at {at}, and devices refuse every update: {how}."
                note(said, "bold red")
            else:
                note(f"{role.role} expires at {at}: {how}.", "yellow")
    for target in view.targets:
        if target.support == "ended":
            contact = target.facts.vulnerability_contact
            said = f"; weaknesses: {contact}" if contact else ""
            note(f"Support of {target.path} has ended{said}.", "yellow")
    if view.staged and all(role.is_complete for role in view.staged):
        note("All that is staged is signed. Next: 'muster update publish'.")
    elif view.staged:
        note("'muster update sign' shows what is staged in full before it signs.")
