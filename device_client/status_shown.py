"""The answer of `muster-device status` for people."""

from datetime import datetime

from device_client.status import Report, Software
from device_client.status_note import Activity
from device_client.timekeeping import Standing


def for_people(report: Report) -> str:
    """One line for each thing that is known; what stands in the way comes last, with a remedy."""
    lines = {
        "membership": report.membership,
        "agent": "not running" if report.activity is Activity.IDLE else report.activity,
        "serial number": report.serial,
        "device id": report.device_id,
        "certificate": report.certificate_serial,
        "proven": _proven(report),
        "valid until": _until(report.not_after, report.time),
        "renewal due": _time(report.renewal_due),
        "successor": f"{report.successor}, not proven yet" if report.successor else None,
        "recovery": "asked for, as the certificate has expired" if report.is_recovering else None,
        "clock": _clock(report),
        "fleet broker": f"{report.fleet.host}:{report.fleet.port}" if report.fleet else None,
        "brokers known": f"by trust bundle {report.trust_version}"
        if report.trust_version
        else None,
        **(_of_software(report.software, report.time) if report.software else {}),
    }
    text = [f"{name + ':':15} {value}" for name, value in lines.items() if value is not None]
    if report.software is not None and (refusal := report.software.refusal) is not None:
        text += [f"refused:        {refusal.code} at {_time(refusal.at)}: {refusal.message}"]
        text += [f"  {refusal.remedy}"] if refusal.remedy else []
    if (error := report.last_error) is not None:
        text += [f"last error:     {error.code} at {_time(error.at)}", f"  {error.message}"]
        text += [f"  {error.remedy}"] if error.remedy else []
    return "\n".join(text)


def _of_software(software: Software, now: datetime) -> dict[str, str | None]:
    revision = f", revision {software.hw_rev}" if software.hw_rev else ""
    running = ", ".join(
        f"{name} {version}{' from the factory' if name in software.factory else ''}"
        for name, version in software.running.items()
    )
    return {
        "model": f"{software.model}{revision}",
        "runs": f"{running} (security counter {software.security_counter})",
        "supported": _until(software.support_until, now, "until "),
        "weaknesses to": ", ".join(software.vulnerability_contacts) or None,
        "images from": ", ".join((*software.hosts, "blocks over MQTT")),
        "update root": None if software.has_root else "missing: give it with --update-root FILE",
        "update": _pending(software, now) if software.rollout else None,
        "to report": str(software.unsent_reports) if software.unsent_reports else None,
    }


def _pending(software: Software, now: datetime) -> str:
    """What is to run, how far it is, and what it waits for."""
    told = [f"{software.rollout}, {software.stage}: {', '.join(software.coming)}"]
    if software.failures:
        several = f"{software.failures} tries"
        told.append(f"{'one try' if software.failures == 1 else several} in vain")
    if software.switch_at is not None and software.switch_at > now:
        told.append(f"switched at {_time(software.switch_at)}")
        if software.window is not None:
            told.append(f"window {software.window} UTC")
    if software.expires is not None and software.expires <= now:
        told.append("expired: it waits for the service to say it again")
    return "; ".join(told)


def _clock(report: Report) -> str:
    guess = _time(report.time)
    match report.clock:
        case Standing.BELIEVED:
            return f"believed; it's {guess}"
        case Standing.BEHIND:
            return f"not believed: behind; it's {guess}, or later"
        case Standing.AHEAD:
            return f"not believed: ahead; it's about {guess}"


def _until(end: datetime | None, now: datetime, before: str = "") -> str | None:
    if end is None:
        return None
    return f"{before}{_time(end)}{', which is over' if end <= now else ''}"


def _proven(report: Report) -> str | None:
    if report.confirmed_at is None:
        return None
    return f"{_time(report.confirmed_at)}, by {report.origin}"


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%F %T} UTC" if moment else None
