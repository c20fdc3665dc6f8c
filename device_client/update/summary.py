"""What people are told of this device's software, from the journal alone."""

from pathlib import Path

from device_client.status import LastError, Software
from device_client.update import journal
from device_client.update.config import load
from device_client.update.journal import State


def software(directory: Path) -> Software | None:
    """What the state in `directory` says, while an agent may be at work; none without updates."""
    config = load(directory)
    if config is None:
        return None
    return _told(journal.looked_at(directory, config.factory()))


def _told(state: State) -> Software:
    work, refusal = state.work, state.refusal
    ends = [each.support_until for each in state.running.values() if each.support_until]
    return Software(
        running={name: each.version or "unknown" for name, each in state.running.items()},
        security_counter=max((x.security_counter for x in state.running.values()), default=0),
        support_until=min(ends, default=None),
        rollout=work.rollout if work else None,
        stage=work.stage if work else None,
        coming=tuple(target.path for target in work.targets) if work else (),
        unsent_reports=len(state.outbox),
        refusal=LastError(
            code=refusal.code, message=refusal.message, remedy=refusal.remedy, at=refusal.at
        )
        if refusal
        else None,
    )
