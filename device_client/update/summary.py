"""What people are told of this device's software, from the journal alone."""

from datetime import datetime, timedelta
from pathlib import Path

from broker.protocol.bundle import ClaimBundle
from device_client.status import Software
from device_client.status_note import LastError
from device_client.update import journal
from device_client.update.config import DeviceConfig, first_root, load
from device_client.update.fetching import allowed_hosts, named_hosts
from device_client.update.journal import Note, Stage, State
from device_client.update.steps import lately_switched
from device_client.update.store import MetadataStore
from device_client.update.timing import switch_time
from device_client.update.updater import Means


def software(
    directory: Path, now: datetime, bundle: ClaimBundle | None, fleet_host: str | None
) -> Software | None:
    """What the state in `directory` says, while an agent may be at work; none without updates."""
    config = load(directory)
    if config is None:
        return None
    flashed = bundle.update_root if bundle else None
    store = MetadataStore(directory / "metadata", first_root(directory, flashed))
    return _told(
        config,
        journal.looked_at(directory, config.factory()),
        now,
        hosts=allowed_hosts(config, named_hosts(bundle), fleet_host),
        has_root=bool(store.roots()),
    )


def _told(
    config: DeviceConfig, state: State, now: datetime, hosts: tuple[str, ...], has_root: bool
) -> Software:
    work, running = state.work, state.running
    ends = [each.support_until for each in running.values() if each.support_until]
    contacts = [each.vulnerability_contact for each in running.values()]
    return Software(
        model=config.model,
        hw_rev=config.hw_rev,
        running={name: each.version or "unknown" for name, each in running.items()},
        factory=tuple(name for name, each in running.items() if each.path is None),
        security_counter=max((each.security_counter for each in running.values()), default=0),
        support_until=min(ends, default=None),
        vulnerability_contacts=tuple(dict.fromkeys(each for each in contacts if each)),
        rollout=work.rollout if work else None,
        stage=work.stage if work else None,
        coming=tuple(target.path for target in work.targets) if work else (),
        switch_at=_switch_at(state, now),
        deadline=work.deadline if work else None,
        window=work.window if work else None,
        expires=work.expires if work else None,
        failures=work.failures if work else 0,
        unsent_reports=len(state.outbox),
        hosts=hosts,
        has_root=has_root,
        refusal=_error(state.refusal) if state.refusal else None,
    )


def _switch_at(state: State, now: datetime) -> datetime | None:
    if state.work is None or state.work.stage is not Stage.READY:
        return None
    at, lately = switch_time(state.work, now), lately_switched(state, now)
    return max(at, lately[0] + timedelta(days=1)) if len(lately) >= Means.most_switches else at


def _error(note: Note) -> LastError:
    return LastError(code=note.code, message=note.message, remedy=note.remedy, at=note.at)
