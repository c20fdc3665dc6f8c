"""`muster devices approve-recovery`: a device that was away for too long may come back."""

from typing import Annotated

import typer

from broker.core.durations import parse_duration
from broker.entry.cli.asking import to_act_on
from broker.entry.cli.options import JsonOption, with_registry
from broker.entry.cli.output import emit, note, table
from broker.entry.cli.views import shown_time
from broker.protocol.names import DeviceId
from broker.services.group_file import MAX_LIFETIME
from broker.services.recovery_approval import approve_recovery

IdsArgument = Annotated[list[str], typer.Argument(metavar="ID", help="The devices' names.")]
ForOption = Annotated[
    str, typer.Option("--for", help="How long the approval holds, such as 7d or 12h.")
]


def add_to(commands: typer.Typer) -> None:
    """Adds the command."""
    commands.command("approve-recovery")(approve)


def approve(
    context: typer.Context, ids: IdsArgument, lasting: ForOption = "7d", as_json: JsonOption = False
) -> None:
    """Let devices recover once with the key of their last certificate, whenever that ended."""
    try:
        duration = parse_duration(lasting)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--for") from None
    if duration > MAX_LIFETIME:
        raise typer.BadParameter(f"at most {MAX_LIFETIME.days}d", param_hint="--for")
    installation = to_act_on(context)
    devices = [DeviceId(each) for each in ids]
    approved = with_registry(
        installation,
        lambda registry: approve_recovery(registry, installation.clock, devices, duration),
    )
    if as_json:
        for each in approved:
            emit(
                {
                    "id": each.device_id,
                    "certificate": each.certificate.serial,
                    "not_after": each.certificate.not_after,
                    "approved_until": each.until,
                }
            )
        return
    rows = [
        (each.device_id, shown_time(each.certificate.not_after), shown_time(each.until))
        for each in approved
    ]
    table(("device", "certificate ends", "may recover until"), rows)
    note("Good for one recovery each. The device asks by itself, at the claim broker.")
