"""The answer of `muster-device status` for people."""

from datetime import datetime

from device_client.agent import utc_now
from device_client.status import Report, Software
from device_client.timekeeping import Standing


def for_people(report: Report) -> str:
    """One line for each thing that is known."""
    lines = {
        "membership": report.membership,
        "agent": report.activity,
        "serial number": report.serial,
        "device id": report.device_id,
        "certificate": report.certificate_serial,
        "proven": _proven(report),
        "valid until": _time(report.not_after),
        "renewal due": _time(report.renewal_due),
        "successor": f"{report.successor}, not proven yet" if report.successor else None,
        "recovery": "asked for, as the certificate has expired" if report.is_recovering else None,
        "clock": None if report.clock is Standing.BELIEVED else f"not believed: {report.clock}",
        "fleet broker": f"{report.fleet.host}:{report.fleet.port}" if report.fleet else None,
        **(_of_software(report.software) if report.software else {}),
    }
    text = [f"{name + ':':15} {value}" for name, value in lines.items() if value is not None]
    if (error := report.last_error) is not None:
        text += [f"last error:     {error.code} at {error.at:%F %T} UTC", f"  {error.message}"]
        text += [f"  {error.remedy}"] if error.remedy else []
    return "\n".join(text)


def _of_software(software: Software) -> dict[str, str | None]:
    refusal = software.refusal
    running = ", ".join(f"{name} {version}" for name, version in software.running.items())
    pending = f"{software.rollout}, {software.stage}: {', '.join(software.coming)}"
    return {
        "runs": f"{running} (security counter {software.security_counter})",
        "supported": _support(software.support_until),
        "update": pending if software.rollout else None,
        "to report": str(software.unsent_reports) if software.unsent_reports else None,
        "refused": f"{refusal.code} at {_time(refusal.at)}: {refusal.message} {refusal.remedy}"
        if refusal
        else None,
    }


def _support(until: datetime | None) -> str | None:
    if until is None:
        return None
    return f"until {_time(until)}{', which is over' if until < utc_now() else ''}"


def _proven(report: Report) -> str | None:
    if report.confirmed_at is None:
        return None
    return f"{_time(report.confirmed_at)}, by {report.origin}"


def _time(moment: datetime | None) -> str | None:
    return f"{moment:%F %T} UTC" if moment else None
