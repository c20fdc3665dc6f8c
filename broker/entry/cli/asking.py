"""Asking before what can't be taken back, and on which home a command acts."""

import sys
from typing import Annotated

import typer

from broker.entry.cli.options import common
from broker.entry.cli.output import note
from broker.operating.installation import Installation
from broker.services.problems import Problem, ProblemCode

YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")]


def ask(question: str, *, yes: bool) -> None:
    """Returns when the person at the terminal agrees, or `yes` says so already.

    Raises:
        Problem: CONFIRMATION_MISSING when nobody is there to be asked.
        typer.Abort: they don't agree.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Problem(
            ProblemCode.CONFIRMATION_MISSING,
            f"Nobody can be asked here, without a terminal: {question} Nothing was done.",
            "Run it on a terminal, or say --yes when you are sure.",
        )
    typer.confirm(question, abort=True, err=True)


def to_act_on(context: typer.Context) -> Installation:
    """The installation that the command is about to change; where it's the one that was found, and
    not one that was named, says which.

    Raises:
        Problem: it isn't there, or its settings or the passphrase file can't be used.
    """
    options = common(context)
    installation = options.installation()
    if options.home is None:
        note(f"Home: {installation.home.path}.")
    return installation
