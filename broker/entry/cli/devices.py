"""`muster devices`: who is in the fleet."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated, Final

import typer

from broker.core.lifecycle import DeviceState
from broker.core.records import Certificate, Device
from broker.entry.cli import device_acts, recovery
from broker.entry.cli.options import JsonOption, common, with_registry
from broker.entry.cli.output import emit, note, table
from broker.entry.cli.views import certificate_json, device_json, shown_time
from broker.ports import DeviceFilter, ReadTransaction, Registry
from broker.protocol.names import ClaimName, DeviceId, GroupName
from broker.services.device_acts import unknown_device

commands = typer.Typer(help="Devices, their certificates and their states.", no_args_is_help=True)
device_acts.add_to(commands)
recovery.add_to(commands)

_PAGE: Final = 1000


@commands.command("list")
def list_(
    context: typer.Context,
    state: Annotated[DeviceState | None, typer.Option(help="Only these.")] = None,
    group: Annotated[str | None, typer.Option(help="Only of this group.")] = None,
    claim: Annotated[
        str | None, typer.Option(help="Only those that claimed with this claim certificate.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """All devices, by name."""
    wanted = DeviceFilter(
        state,
        GroupName(group) if group else None,
        ClaimName(claim) if claim else None,
        limit=_PAGE,
    )
    with_registry(common(context).installation(), lambda registry: _list(registry, wanted, as_json))


@commands.command("show")
def show(
    context: typer.Context,
    device_id: Annotated[str, typer.Argument(metavar="ID", help="The device's name.")],
    as_json: JsonOption = False,
) -> None:
    """One device with all the certificates that it ever had."""
    device, certificates = with_registry(
        common(context).installation(), lambda registry: _one(registry, device_id)
    )
    if as_json:
        shown = [certificate_json(certificate) for certificate in certificates]
        emit(device_json(device) | {"certificates": shown})
        return
    _show_device(device)
    _show_certificates(certificates)
    note(f"Its history: 'muster events --device {device.id}'.")


async def _list(registry: Registry, wanted: DeviceFilter, as_json: bool) -> None:
    total = 0
    async for page in _pages(registry, wanted):
        _show_page(page, as_json, is_first=total == 0)
        total += len(page)
    if not as_json:
        note(f"{total:,} devices.")


async def _pages(registry: Registry, wanted: DeviceFilter) -> AsyncIterator[list[Device]]:
    """A fleet may be too large to hold; each page is read by itself."""
    while page := await _page(registry, wanted):
        yield page
        wanted = replace(wanted, after=page[-1].id)


async def _page(registry: Registry, wanted: DeviceFilter) -> list[Device]:
    return await registry.read(lambda view: view.devices(wanted))


def _show_page(page: list[Device], as_json: bool, *, is_first: bool) -> None:
    if as_json:
        for device in page:
            emit(device_json(device))
        return
    rows = [
        (
            device.id,
            device.state.value,
            device.group,
            device.serial,
            shown_time(device.activated_at),
        )
        for device in page
    ]
    columns = ("id", "state", "group", "serial", "active since")
    table(columns, rows, show_columns=is_first)


async def _one(registry: Registry, device_id: str) -> tuple[Device, list[Certificate]]:
    def work(view: ReadTransaction) -> tuple[Device, list[Certificate]]:
        device = view.device(DeviceId(device_id))
        if device is None:
            raise unknown_device(device_id)
        return device, view.certificates_of([device.id])

    return await registry.read(work)


def _show_device(device: Device) -> None:
    fields = {
        "state": device.state.value,
        "group": device.group,
        "serial": device.serial,
        "registered": shown_time(device.registered_at),
        "active since": shown_time(device.activated_at),
    }
    reported = {f"parameter {name}": value for name, value in sorted(device.parameters.items())}
    table(("field", "value"), list((fields | reported).items()), title=f"device {device.id}")


def _show_certificates(certificates: list[Certificate]) -> None:
    rows = [
        (
            certificate.serial,
            "held" if certificate.held_at else certificate.state.value,
            certificate.claim_name or "-",
            shown_time(certificate.not_before),
            shown_time(certificate.not_after),
            certificate.revoked_for.value if certificate.revoked_for else "-",
        )
        for certificate in certificates
    ]
    columns = ("certificate", "state", "claimed with", "from", "until", "revoked for")
    table(columns, rows, title="certificates, oldest first")
