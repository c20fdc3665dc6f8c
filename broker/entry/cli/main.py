"""`muster`: what an operator types."""

import importlib.metadata
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from broker.entry.cli import (
    ca_infrastructure,
    ca_rollover,
    claim_certs,
    demo,
    devices,
    doctor,
    enroll,
    events,
    groups,
    init,
    rotate,
    up,
    update,
)
from broker.entry.cli.failures import Commands
from broker.entry.cli.options import PASSPHRASE_VARIABLE, Common

program = typer.Typer(
    name="muster",
    cls=Commands,
    help="Muster lets a fleet of devices in over MQTT, and gives each its own identity.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
program.command("init")(init.init)
program.command("renew")(init.renew_certificates)
program.command("migrate")(init.migrate)
program.add_typer(claim_certs.commands, name="claim-cert")
program.add_typer(groups.commands, name="group")
program.add_typer(enroll.commands, name="enroll")
program.add_typer(devices.commands, name="devices")
program.add_typer(rotate.commands, name="rotate")
_ca = typer.Typer(help="Replace the installation's authorities.", no_args_is_help=True)
_ca.add_typer(ca_rollover.commands, name="rollover")
_ca.add_typer(ca_infrastructure.commands, name="infrastructure")
program.add_typer(_ca, name="ca")
program.add_typer(update.commands, name="update")
program.add_typer(events.commands, name="events")
program.command("doctor")(doctor.doctor)
program.command("up")(up.up)
program.command("demo")(demo.demo)

_COMMON: Final = ("--home", "--passphrase-file")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(importlib.metadata.version("mqtt-muster"))
        raise typer.Exit


@program.callback()
def _before(
    context: typer.Context,
    home: Annotated[
        Path | None,
        typer.Option(
            envvar="MUSTER_HOME",
            help="The installation's folder (else ./muster-home, else /etc/muster).",
        ),
    ] = None,
    passphrase_file: Annotated[
        Path | None,
        typer.Option(
            envvar=PASSPHRASE_VARIABLE,
            help="A file whose one line opens the authorities' keys.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="And exit.")
    ] = False,
) -> None:
    source = context.get_parameter_source("passphrase_file")
    is_variable = source is not None and source.name == "ENVIRONMENT"
    named_by = PASSPHRASE_VARIABLE if is_variable else "--passphrase-file"
    context.obj = Common(home, passphrase_file, named_by)


def run(arguments: Sequence[str]) -> int:
    """Carries out one command line; the exit status."""
    try:
        program(common_first(arguments), prog_name="muster")
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return 0


def common_first(arguments: Sequence[str]) -> list[str]:
    """The same command line with the common options in front, where the parser wants them; people
    write them anywhere."""
    first: list[str] = []
    rest: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in _COMMON:
            first += [argument, *[value for value in [next(waiting, None)] if value is not None]]
        elif argument.startswith(tuple(f"{option}=" for option in _COMMON)):
            first.append(argument)
        else:
            rest.append(argument)
    return first + rest


def main() -> None:
    """The command's entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
