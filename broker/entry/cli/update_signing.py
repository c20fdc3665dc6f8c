"""`muster update sign`, `publish` and what goes between the machines."""

from pathlib import Path
from typing import Annotated

import typer

from broker.entry.cli.asking import YesOption, ask
from broker.entry.cli.output import note, say
from broker.entry.cli.update_keys import KeyPassphraseOption, key_references
from broker.entry.cli.update_options import update_desk_of
from broker.entry.cli.update_shown import announce_published, show_staged
from broker.operating.updating import ExportedStaging, nothing_staged


def sign(
    context: typer.Context,
    key: Annotated[
        list[str], typer.Option(help="A private key: a file, or a URI such as hsm:… (repeatable).")
    ],
    staging: Annotated[
        Path | None, typer.Option(help="A folder of 'export-staging'; then no home is needed.")
    ] = None,
    key_passphrase_file: KeyPassphraseOption = None,
    yes: YesOption = False,
) -> None:
    """Sign what is staged, after showing what it is. Signatures add up: everybody signs alone."""
    place = update_desk_of(context) if staging is None else ExportedStaging(staging)
    shown = place.staged()
    if not shown:
        raise nothing_staged()
    show_staged(shown, whole=True)
    ask("Sign this?", yes=yes)
    for role, keyid in place.sign(key_references(key, key_passphrase_file or ()), shown):
        say(f"{role} is signed by {keyid}.")
    left = [role for role in place.staged() if not role.is_complete]
    if left:
        note(f"Signatures are still missing for {', '.join(role.role for role in left)}.")
    elif staging is not None:
        note(f"Complete. Next: 'muster update import-staging {staging}' at the home, then publish.")
    else:
        note("Complete. Next: 'muster update publish'.")


def publish(context: typer.Context) -> None:
    """Put what is staged in force, all of it or nothing, after reading it as a device would."""
    announce_published(update_desk_of(context).publish())


def export_staging(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="A new folder, on a medium for instance.")],
) -> None:
    """Write what is staged into a folder, to be signed where the keys are."""
    show_staged(update_desk_of(context).export_staging(folder))


def import_staging(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The folder, with signatures.")],
) -> None:
    """Take the signatures that were made in a folder; what they sign must be unchanged."""
    desk = update_desk_of(context)
    for role, keyid in desk.import_staging(folder):
        say(f"{role} is signed by {keyid}.")
    show_staged(desk.staged())


def discard(context: typer.Context) -> None:
    """Forget what is staged; what is published stays."""
    update_desk_of(context).discard()
    say("Nothing is staged any more.")
