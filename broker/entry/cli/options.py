"""What all commands share: where the installation is, and the passphrase of its keys."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, TypeVar

import typer

from broker.entry.cli.output import STYLES, note
from broker.operating.installation import Installation, open_installation
from broker.ports.registry import Registry
from broker.services.problems import Problem, ProblemCode

ResultT = TypeVar("ResultT")

MAX_PASSPHRASE: Final = 1024
PASSPHRASE_VARIABLE: Final = "MUSTER_PASSPHRASE_FILE"  # noqa: S105 - a name
MAX_WAVE: Final = 1_000_000
"""Devices; more than any fleet has."""
_INTERRUPTED: Final = 128 + signal.SIGINT
_HERE: Final = Path("muster-home")
_SYSTEM: Final = Path("/etc/muster")

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print JSON to stdout, one object a line.")
]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Say what would be done; do nothing.")
]


@dataclass(frozen=True)
class Common:
    """The options in front of every command."""

    home: Path | None
    passphrase_file: Path | None
    passphrase_named_by: str
    """The option or the variable that names it."""

    def home_path(self) -> Path:
        """The home that was named, else the one here, else the system's."""
        if self.home is not None:
            return self.home
        return _SYSTEM if _SYSTEM.is_dir() and not _HERE.is_dir() else _HERE

    def passphrase(self) -> bytes | None:
        """What the passphrase file holds, without the newline at its end; none without a file.

        Raises:
            Problem: PASSPHRASE_INVALID or FILE_UNREADABLE.
        """
        if self.passphrase_file is None:
            return None
        return read_passphrase(self.passphrase_file, self.passphrase_named_by)

    def installation(self) -> Installation:
        """The installation, with its settings checked; the passphrase is read once a key needs it.

        Raises:
            Problem: it isn't there, or its settings can't be used.
        """
        return open_installation(self.home_path(), self.passphrase)


def common(context: typer.Context) -> Common:
    """The options in front of this command."""
    found = context.find_object(Common)
    if found is None:
        raise RuntimeError("the command was called without the program around it")
    return found


def with_registry(
    installation: Installation, work: Callable[[Registry], Awaitable[ResultT]]
) -> ResultT:
    """What `work` returns on the open registry."""

    async def run() -> ResultT:
        async with installation.registry() as registry:
            return await work(registry)

    return asyncio.run(run())


def with_registry_watched(
    installation: Installation, work: Callable[[Registry], Awaitable[ResultT]]
) -> ResultT:
    """As `with_registry`, for work that only looks on: who leaves by Ctrl-C is told what that does,
    with the exit status that shells have for it."""
    try:
        return with_registry(installation, work)
    except KeyboardInterrupt:
        note("No longer watched; it goes on.")
        raise typer.Exit(_INTERRUPTED) from None


def warn_unserved(installation: Installation) -> None:
    """Says so when nobody is there to carry out what was begun."""
    if installation.is_served() is False:
        note(
            "No service runs on this home, on this machine: it begins when one does "
            "('systemctl start muster', or 'muster up').",
            STYLES["warning"],
        )


def read_passphrase(path: Path, named_by: str) -> bytes:
    """What a passphrase file holds, without the newline at its end.

    Args:
        named_by: the option or the variable that names it.

    Raises:
        Problem: PASSPHRASE_INVALID or FILE_UNREADABLE.
    """
    text = _read(path, named_by).rstrip(b"\r\n")
    if not 0 < len(text) <= MAX_PASSPHRASE:
        raise Problem(
            ProblemCode.PASSPHRASE_INVALID,
            f"'{path}' doesn't hold a passphrase of 1 to {MAX_PASSPHRASE} bytes.",
            f"It's named by {named_by}: write the passphrase into it, on one line.",
        )
    return text


def _read(path: Path, named_by: str) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(MAX_PASSPHRASE + 3)
    except OSError as error:
        raise Problem(
            ProblemCode.FILE_UNREADABLE,
            f"'{path}' can't be read: {error.strerror}.",
            f"It's named by {named_by}: check the name, and who may read it.",
        ) from error
