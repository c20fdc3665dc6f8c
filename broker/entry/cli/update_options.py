"""What the commands about updates share."""

import typer

from broker.entry.cli.options import common
from broker.updating import UpdateDesk, update_desk


def update_desk_of(context: typer.Context) -> UpdateDesk:
    """The repository in the home that the command line names.

    Raises:
        Problem: there is no home, or its settings can't be used.
    """
    installation = common(context).installation()
    return update_desk(installation.home, lambda: installation.passphrase)
