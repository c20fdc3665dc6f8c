"""`muster devices`: who is in the fleet."""

from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Final

import typer

from broker.core.lifecycle import CertificateState, DeviceState
from broker.core.records import Certificate, Device, has_expired
from broker.core.update_records import DeviceUpdate, KnownReport
from broker.entry.cli import device_acts, recovery
from broker.entry.cli.options import JsonOption, common, with_registry
from broker.entry.cli.output import counted, emit, note, table
from broker.entry.cli.software_shown import (
    contacts_of,
    has_ended,
    report_json,
    show_software,
    software_cells,
    software_json,
)
from broker.entry.cli.views import certificate_json, device_json, let_in_until, shown_time
from broker.operating.installation import Installation
from broker.operating.updating import update_repository
from broker.ports.registry import DeviceFilter, ReadTransaction, Registry
from broker.ports.updates import UpdateError
from broker.protocol.names import ClaimName, DeviceId, GroupName
from broker.services import claim_certificates
from broker.services.enrollments import require_group
from broker.services.problems import unknown_device

commands = typer.Typer(help="Devices, their certificates and their states.", no_args_is_help=True)
device_acts.add_to(commands)
recovery.add_to(commands)

_PAGE: Final = 1000
_REPORTS: Final = 20
_SOFTWARE: Final = ("runs", "supported until")


@commands.command("list")
def list_(
    context: typer.Context,
    state: Annotated[DeviceState | None, typer.Option(help="Only these.")] = None,
    group: Annotated[str | None, typer.Option(help="Only of this group.")] = None,
    claim: Annotated[
        str | None,
        typer.Option(
            "--claim", "--claimed-by", help="Only those that claimed with this claim certificate."
        ),
    ] = None,
    unsupported: Annotated[
        bool, typer.Option("--unsupported", help="Only those whose software's support has ended.")
    ] = False,
    expired: Annotated[
        bool, typer.Option("--expired", help="Only members whose certificates have expired.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """All devices, by name."""
    wanted = DeviceFilter(
        state,
        GroupName(group) if group else None,
        ClaimName(claim) if claim else None,
        limit=_PAGE,
    )
    installation = common(context).installation()
    shown = _Shown(installation.clock.now(), unsupported, expired, as_json)
    with_registry(installation, lambda registry: _list(registry, wanted, shown))


@commands.command("show")
def show(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument(metavar="ID", help="The device's name.")],
    as_json: JsonOption = False,
) -> None:
    """One device with all the certificates that it ever had."""
    installation = common(context).installation()
    now = installation.clock.now()
    found = with_registry(installation, lambda registry: _one(registry, device_id))
    device = found.device
    until = let_in_until(found.certificates, now)
    expired = has_expired(device, found.certificates, now)
    contacts = _contacts(installation, found.software)
    if as_json:
        software = software_json(found.software, now)
        more = {
            "expired": expired,
            "let_in_until": until,
            "certificates": [certificate_json(each, now) for each in found.certificates],
            "software": software and software | {"vulnerability_contacts": contacts},
            "updates": [report_json(each) for each in found.reports],
        }
        emit(device_json(device) | more)
        return
    _show_device(device, until, expired=expired)
    show_software(found.software, found.reports, now, contacts)
    _show_certificates(found.certificates, now)
    note(f"Its history: 'muster events --device {device.id}'.")


def _contacts(installation: Installation, software: DeviceUpdate | None) -> tuple[str, ...]:
    """None while the update repository can't be read: that is for 'muster doctor' to say."""
    with suppress(UpdateError):
        published = update_repository(installation.home, installation.passphrase).targets()
        return contacts_of(software, published)
    return ()


@dataclass(frozen=True)
class _Shown:
    """Which lines of a list, and how."""

    now: datetime
    unsupported: bool
    expired: bool
    as_json: bool

    def includes(self, line: "_Line") -> bool:
        """Whether it's one of those that were asked for."""
        if self.expired and not line.expired:
            return False
        return not self.unsupported or _is_unsupported(line, self.now)


@dataclass(frozen=True)
class _Line:
    """A device, until when a certificate lets it in, and what it runs, as far as it's known."""

    device: Device
    let_in_until: datetime | None
    expired: bool
    software: DeviceUpdate | None


@dataclass(frozen=True)
class _One:
    """All that is known of one device."""

    device: Device
    certificates: list[Certificate]
    software: DeviceUpdate | None
    reports: list[KnownReport]


async def _list(registry: Registry, wanted: DeviceFilter, shown: _Shown) -> None:
    # A name that nobody has would be an empty list, and so no alarm.
    if wanted.group is not None:
        await require_group(registry, wanted.group)
    if wanted.claim_name is not None:
        await claim_certificates.find(registry, wanted.claim_name)
    total = 0
    async for page in _pages(registry, wanted, shown.now):
        lines = [each for each in page if shown.includes(each)]
        _show_lines(lines, shown, is_first=total == 0)
        total += len(lines)
    if not shown.as_json:
        note(f"{counted(total, 'device')}.")


def _is_unsupported(line: _Line, now: datetime) -> bool:
    return line.software is not None and has_ended(line.software, now)


async def _pages(
    registry: Registry, wanted: DeviceFilter, now: datetime
) -> AsyncIterator[list[_Line]]:
    """A fleet may be too large to hold; each page is read by itself."""
    while page := await _page(registry, wanted, now):
        yield page
        wanted = replace(wanted, after=page[-1].device.id)


async def _page(registry: Registry, wanted: DeviceFilter, now: datetime) -> list[_Line]:
    def work(view: ReadTransaction) -> list[_Line]:
        devices = view.devices(wanted)
        ids = [device.id for device in devices]
        known = {each.device_id: each for each in view.device_updates(ids)}
        held: dict[DeviceId, list[Certificate]] = {each: [] for each in ids}
        for certificate in view.certificates_of(ids):
            held[certificate.device_id].append(certificate)
        return [
            _Line(
                device,
                let_in_until(held[device.id], now),
                has_expired(device, held[device.id], now),
                known.get(device.id),
            )
            for device in devices
        ]

    return await registry.read(work)


def _show_lines(lines: list[_Line], shown: _Shown, *, is_first: bool) -> None:
    if shown.as_json:
        for line in lines:
            more = {
                "expired": line.expired,
                "let_in_until": line.let_in_until,
                "software": software_json(line.software, shown.now),
            }
            emit(device_json(line.device) | more)
        return
    rows = [
        (
            line.device.id,
            _state(line.device, line.expired),
            line.device.group,
            line.device.serial,
            shown_time(line.device.activated_at),
            _until(line.let_in_until),
            *software_cells(line.software, shown.now),
        )
        for line in lines
    ]
    columns = ("id", "state", "group", "serial", "active since", "let in until", *_SOFTWARE)
    if rows:
        table(columns, rows, show_columns=is_first)


async def _one(registry: Registry, device_id: str) -> _One:
    def work(view: ReadTransaction) -> _One:
        device = view.device(DeviceId(device_id))
        if device is None:
            raise unknown_device(device_id)
        return _One(
            device,
            view.certificates_of([device.id]),
            view.device_update(device.id),
            view.reports_of(device.id, _REPORTS),
        )

    return await registry.read(work)


def _until(moment: datetime | None) -> str:
    return "no certificate" if moment is None else shown_time(moment)


def _state(device: Device, expired: bool) -> str:
    return f"{device.state.value}, expired" if expired else device.state.value


def _show_device(device: Device, until: datetime | None, *, expired: bool) -> None:
    fields = {
        "state": _state(device, expired),
        "group": device.group,
        "serial": device.serial,
        "registered": shown_time(device.registered_at),
        "active since": shown_time(device.activated_at),
        "let in until": _until(until),
    }
    reported = {f"parameter {name}": value for name, value in sorted(device.parameters.items())}
    table(("field", "value"), list((fields | reported).items()), title=f"device {device.id}")


def _show_certificates(certificates: list[Certificate], now: datetime) -> None:
    rows = [
        (
            certificate.serial,
            _standing(certificate, now),
            certificate.claim_name or "-",
            shown_time(certificate.not_before),
            shown_time(certificate.not_after),
            certificate.revoked_for.value if certificate.revoked_for else "-",
        )
        for certificate in certificates
    ]
    columns = ("certificate", "state", "claimed with", "from", "until", "revoked for")
    table(columns, rows, title="certificates, oldest first")


def _standing(certificate: Certificate, now: datetime) -> str:
    """Where it stands; of one that was superseded, until when it still lets its holder in."""
    if certificate.held_at:
        return "held"
    if certificate.state is not CertificateState.REVOKED and now >= certificate.not_after:
        return f"{certificate.state.value}, expired"
    if certificate.state is CertificateState.SUPERSEDED:
        return f"superseded, good until {shown_time(certificate.grace_until)}"
    return certificate.state.value
