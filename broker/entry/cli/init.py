"""`muster init`: a new installation, and what to do next."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from broker.entry.cli.asking import to_act_on
from broker.entry.cli.options import common
from broker.entry.cli.output import note, say
from broker.operating.initialise import Choices, ZoneChoice, initialise
from broker.settings import BrokerKind

HostOption = Annotated[
    list[str] | None,
    typer.Option(
        "--host", help="A name or address by which devices reach the brokers; repeatable."
    ),
]


def init(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder to make.")],
    host: HostOption = None,
    claim_broker: Annotated[BrokerKind, typer.Option(help="Who serves claims.")] = (
        BrokerKind.EMBEDDED
    ),
    fleet_broker: Annotated[BrokerKind, typer.Option(help="Who serves the fleet.")] = (
        BrokerKind.EMBEDDED
    ),
    claim_port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to claim.")] = 8884,
    fleet_port: Annotated[int, typer.Option(min=0, max=65_535, help="Where to live.")] = 8883,
    registry: Annotated[
        str | None,
        typer.Option(metavar="URL", help="sqlite:///PATH or postgresql://USER@HOST/DATABASE."),
    ] = None,
) -> None:
    """Make an installation: authorities, certificates, settings, registry.

    With --passphrase-file the authorities' keys are encrypted. Nothing is ever overwritten; an
    init that was interrupted is simply run again.
    """
    passphrase = common(context).passphrase()
    choices = Choices(
        hosts=host or [],
        claim=ZoneChoice(claim_broker, claim_port),
        fleet=ZoneChoice(fleet_broker, fleet_port),
        registry=registry,
    )
    home = initialise(folder, choices, passphrase, datetime.now(UTC))
    say(str(home.path))
    note(_NEXT.format(home=shlex.quote(str(folder.resolve()))))
    if passphrase is None:
        note("The authorities' keys aren't encrypted; --passphrase-file would have done so.")
    note(f"Keep a copy of {folder}/ca in a safe place, and take ca/root.key off this machine.")


def renew_certificates(context: typer.Context, host: HostOption = None) -> None:
    """Renew the certificates of the brokers and the service; --host adds a name to them."""
    installation = to_act_on(context)
    for path in installation.renew_certificates(host or []):
        say(str(path))
    note("Restart the brokers and the service to use them.")


def migrate(context: typer.Context) -> None:
    """Bring the registry to this release's schema; make a backup and stop the service first."""
    to_act_on(context).migrate()
    say("The registry has this release's schema.")


_NEXT = """\
The installation is ready. Next:
  export MUSTER_HOME={home}
  muster claim-cert create batch-1 --max-claims 100 --expires 30d --output batch-1.bundle
  muster group apply groups.toml        # [groups.NAME] with claim_certificates = ["batch-1"] …
  muster enroll import serials.csv --group NAME
  muster up"""
