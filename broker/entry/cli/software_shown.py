"""What devices run, by their own signed reports, as the commands show it."""

from collections.abc import Iterable, Sequence
from datetime import datetime

from broker.core.update_records import DeviceUpdate, KnownReport
from broker.entry.cli.output import note, table
from broker.entry.cli.views import Json, shown_time
from broker.ports.updates import PublishedTarget


def contacts_of(
    known: DeviceUpdate | None, published: Iterable[PublishedTarget]
) -> tuple[str, ...]:
    """To whom weaknesses of what a device runs are told, as its published images say."""
    runs = {} if known is None else known.running
    found = (x.facts.vulnerability_contact for x in published if x.path in runs)
    return tuple(dict.fromkeys(filter(None, found)))


def software_json(known: DeviceUpdate | None, now: datetime) -> Json | None:
    """What a device runs; none when it never reported."""
    if known is None or known.reported_at is None:
        return None
    return {
        "running": known.running,
        "security_counter": known.security_counter,
        "support_until": known.support_until,
        "supported": not has_ended(known, now),
        "reported_at": known.reported_at,
        "rollout": known.rollout,
        "phase": known.phase,
        "code": known.code,
    }


def report_json(report: KnownReport) -> Json:
    """How one assignment ended."""
    return {
        "rollout": report.rollout,
        "sequence": report.sequence,
        "phase": report.phase,
        "at": report.at,
        "received_at": report.received_at,
        "code": report.code,
        "detail": report.detail,
    }


def has_ended(known: DeviceUpdate, now: datetime) -> bool:
    """Whether the support of what it runs is over."""
    return known.support_until is not None and known.support_until <= now


def software_cells(known: DeviceUpdate | None, now: datetime) -> tuple[str, str]:
    """What runs and until when it's supported, for a line of a list."""
    if known is None or known.reported_at is None:
        return "-", "-"
    return ", ".join(known.running.values()) or "-", _support(known, now)


def show_software(
    known: DeviceUpdate | None,
    reports: Sequence[KnownReport],
    now: datetime,
    contacts: Sequence[str] = (),
) -> None:
    """What one device runs, and how its updates ended; nothing when it never had any."""
    if known is None:
        return
    fields = {
        "runs": ", ".join(_image(*each) for each in known.running.items()) or "-",
        "security counter": "-" if known.security_counter is None else str(known.security_counter),
        "supported until": _support(known, now),
        "weaknesses to": ", ".join(contacts) or "-",
        "last report": shown_time(known.reported_at),
        "said": " ".join(filter(None, (known.phase, known.code))) or "-",
        "rollout": known.rollout or "-",
    }
    table(("field", "value"), list(fields.items()), title="software, as it reported")
    rows = [
        (r.rollout, r.phase.value, r.code or "-", shown_time(r.received_at), r.detail or "-")
        for r in reports
    ]
    if rows:
        table(
            ("rollout", "ended", "code", "reported", "detail"), rows, title="updates, newest first"
        )
    if has_ended(known, now):
        note("The support of what it runs has ended: bring it to a newer image.", "yellow")


def _image(path: str, version: str) -> str:
    """Images have a path of several parts; a mere component's name is of what the factory made."""
    return f"{path} ({version})" if "/" in path else f"{path} {version} (from the factory)"


def _support(known: DeviceUpdate, now: datetime) -> str:
    if known.support_until is None:
        return "-"
    day = f"{known.support_until:%Y-%m-%d}"
    return f"{day} ENDED" if has_ended(known, now) else day
