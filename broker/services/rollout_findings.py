"""What an operator should know about rollouts, and about devices that were left behind."""

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from broker.core.findings import Finding, Level
from broker.core.rollout import Rollout, RolloutState
from broker.ports.clock import Clock
from broker.ports.registry import ReadTransaction, Registry

_LOOKED_AT: Final = 50


async def examine_rollouts(registry: Registry, clock: Clock) -> list[Finding]:
    """Rollouts that were stopped, and devices whose software has no support any more.

    Raises:
        RegistryError: the registry failed.
    """
    now = clock.now()
    return await registry.read(lambda view: list(_examine(view, now)))


def _examine(view: ReadTransaction, now: datetime) -> Iterator[Finding]:
    unsupported = view.count_unsupported(now)
    if unsupported:
        yield Finding(
            Level.WARNING,
            "support",
            "devices",
            f"{unsupported:,} devices run something whose support has ended.",
            "See 'muster devices list --unsupported'; push them a newer image.",
        )
    newest = view.rollouts(_LOOKED_AT)
    for place, rollout in enumerate(newest):
        # What was stopped and followed by another for the same devices is history.
        is_aborted = rollout.state is RolloutState.ABORTED
        if not (is_aborted and any(_follows(later, rollout) for later in newest[:place])):
            yield from _examine_one(rollout)


def _follows(later: Rollout, earlier: Rollout) -> bool:
    """Whether the later one brings something to every part of every device of the earlier one."""
    old, new = earlier.selection, later.selection
    if old.grows:
        meets_all = new.everyone or (new.group, new.everyone) == (old.group, old.everyone)
    else:
        meets_all = new.everyone or set(old.devices) <= set(new.devices)
    return meets_all and _parts(earlier) <= _parts(later)


def _parts(rollout: Rollout) -> set[tuple[str, str]]:
    return {(image.facts.model, image.facts.component) for image in rollout.images}


def _examine_one(rollout: Rollout) -> Iterator[Finding]:
    if rollout.state is RolloutState.ABORTED:
        yield Finding(
            Level.WARNING,
            "rollout",
            rollout.name,
            f"It was stopped: {rollout.reason}.",
            f"See 'muster update rollout {rollout.name}'; mend the image and push the next, or "
            f"close the matter: 'muster update cancel {rollout.name}'.",
        )
    elif rollout.state is RolloutState.PAUSED:
        yield Finding(
            Level.WARNING,
            "rollout",
            rollout.name,
            f"It is paused: {rollout.reason or 'by an operator'}.",
            f"Go on with 'muster update resume {rollout.name}', or cancel it.",
        )
