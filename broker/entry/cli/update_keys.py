"""The keys of a ceremony: made as files, opened by passphrases that never stand on a command line.

The passphrase of the home's own keys is another one (`--passphrase-file`).
"""

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from broker.entry.cli.files import read_text_file
from broker.entry.cli.options import MAX_PASSPHRASE
from broker.entry.cli.output import note, say
from broker.operating.updating import KeyReference, needs_passphrase, new_key
from broker.services.problems import Problem, ProblemCode


class Algorithm(StrEnum):
    """What devices verify."""

    ED25519 = "ed25519"
    P256 = "p256"


AlgorithmOption = Annotated[Algorithm, typer.Option(help="The kind of the new keys.")]
KeyPassphraseOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--key-passphrase-file",
        help="A file whose one line opens the key, or is its token's PIN; one for all keys, or "
        "one each in their order.",
    ),
]
NoPassphraseOption = Annotated[
    bool, typer.Option("--no-passphrase", help="Leave the key files unencrypted.")
]

commands = typer.Typer(help="Keys of root and targets.", no_args_is_help=True)


@commands.command("new")
def new(
    file: Annotated[
        Path, typer.Argument(help="The private key's file; FILE.pub is its other half.")
    ],
    algorithm: AlgorithmOption = Algorithm.ED25519,
    key_passphrase_file: KeyPassphraseOption = None,
    no_passphrase: NoPassphraseOption = False,
) -> None:
    """Make one key, on the medium that it stays on."""
    (passphrase,) = new_passphrases(1, key_passphrase_file or (), no_passphrase=no_passphrase)
    key = new_key(file, algorithm.value, passphrase)
    say(key.keyid)
    note(f"{file} never leaves its medium; {file}.pub goes to 'muster update init'.")


def new_passphrases(
    count: int, files: Sequence[Path], *, no_passphrase: bool
) -> list[bytes | None]:
    """What new keys are encrypted with; nothing only when the operator says so.

    Raises:
        Problem: PASSPHRASE_INVALID or FILE_UNREADABLE.
    """
    if no_passphrase:
        return [None] * count
    if files:
        return _from_files(count, files)
    if not sys.stdin.isatty():
        raise Problem(
            ProblemCode.PASSPHRASE_INVALID,
            "The new keys have no passphrase.",
            "Name a file that holds one with --key-passphrase-file, or say --no-passphrase.",
        )
    text: str = typer.prompt(
        "Passphrase for the new keys", hide_input=True, confirmation_prompt=True, err=True
    )
    return [text.encode()] * count


def key_references(keys: Sequence[str], files: Sequence[Path]) -> list[KeyReference]:
    """Private keys with what opens them; asks at a terminal for what isn't given.

    Raises:
        Problem: PASSPHRASE_INVALID or FILE_UNREADABLE.
        UpdateError: FILE_UNREADABLE.
    """
    given = _from_files(len(keys), files) if files else [None] * len(keys)
    pairs = zip(keys, given, strict=True)
    return [KeyReference(key, _opened_by(key, passphrase)) for key, passphrase in pairs]


def _opened_by(key: str, passphrase: bytes | None) -> bytes | None:
    if not needs_passphrase(key):
        return None
    if passphrase is None and sys.stdin.isatty():
        text: str = typer.prompt(f"Passphrase or PIN of {key}", hide_input=True, err=True)
        return text.encode()
    return passphrase


def _from_files(count: int, files: Sequence[Path]) -> list[bytes | None]:
    if len(files) not in (1, count):
        raise Problem(
            ProblemCode.PASSPHRASE_INVALID,
            f"{len(files)} passphrase files for {count} keys.",
            "Name one for all of them, or one for each in their order.",
        )
    found: list[bytes | None] = []
    for file in files:
        text = read_text_file(file, MAX_PASSPHRASE + 2).rstrip(b"\r\n")
        if not 0 < len(text) <= MAX_PASSPHRASE:
            raise Problem(
                ProblemCode.PASSPHRASE_INVALID,
                f"'{file}' doesn't hold a passphrase of 1 to {MAX_PASSPHRASE} bytes.",
                "Write the passphrase into it, on one line.",
            )
        found.append(text)
    return found if len(found) == count else found * count
