"""The root's key, for the commands that replace an authority."""

from pathlib import Path
from typing import Annotated

import typer

from broker.entry.cli.options import read_passphrase
from broker.operating.authorities import RootKey
from broker.operating.installation import Installation

RootKeyOption = Annotated[
    Path | None,
    typer.Option("--root-key", metavar="FILE", help="The root's key, if it isn't in the home."),
]
RootPassphraseOption = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="What opens the root's key, if that is another passphrase."),
]


def root_key_of(
    installation: Installation, file: Path | None, passphrase_file: Path | None
) -> RootKey:
    """The key that the command line names; else the home's, by the home's passphrase.

    Raises:
        Problem: PASSPHRASE_INVALID or FILE_UNREADABLE.
    """
    if passphrase_file is None:
        return RootKey(file, installation.passphrase)
    return RootKey(file, read_passphrase(passphrase_file, "--root-passphrase-file"))
