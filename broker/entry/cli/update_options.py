"""What the commands about updates share."""

import typer

from broker.entry.cli.asking import to_act_on
from broker.operating.updating import UpdateDesk, update_desk


def update_desk_of(context: typer.Context) -> UpdateDesk:
    """The repository that the command is about to change, in the home that is named or found.

    Raises:
        Problem: there is no home, or its settings can't be used.
    """
    installation = to_act_on(context)
    return update_desk(installation.home, lambda: installation.passphrase)
