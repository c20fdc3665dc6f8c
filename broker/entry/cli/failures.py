"""How commands fail: a code, a sentence and what to do next, on stderr; never a traceback.

Exit status 1 when the command couldn't be carried out, 2 when it was written wrongly.
"""

import os
import sys
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

import typer
from typer.core import TyperGroup

from broker.entry.cli.output import note
from broker.protocol.codes import EXPLANATIONS, Refused
from broker.settings import SETTINGS_FILE

_ORDER = [
    *("init", "claim-cert", "group", "enroll", "up"),
    *("devices", "rotate", "update", "events", "doctor", "ca", "renew", "migrate", "demo"),
]
DEBUG = "MUSTER_DEBUG"
_REMEDIES = {
    # Where the error comes from, nobody knows how a command is given the passphrase.
    "passphrase_missing": "Name the file that holds it with --passphrase-file FILE or "
    "MUSTER_PASSPHRASE_FILE.",
}


@runtime_checkable
class Explained(Protocol):
    """What every error of Muster's own carries."""

    code: str
    remedy: str


class Commands(TyperGroup):
    """The program: whatever a command raises ends here."""

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order of an operator's first day; what isn't in it comes last."""
        places = {name: place for place, name in enumerate(_ORDER)}
        return sorted(super().list_commands(ctx), key=lambda name: places.get(name, len(places)))

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _leave_quietly()
        except Exception as error:
            if _is_for_typer(error) or os.environ.get(DEBUG):
                raise
            report(error)
            raise typer.Exit(1) from None


def _leave_quietly() -> NoReturn:
    """Whoever read the output has seen enough; what Python still holds back goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    raise typer.Exit(1) from None


def report(error: BaseException) -> None:
    """Says what went wrong and what to do."""
    cause = _cause(error)
    code, message, remedy = _explain(cause)
    note(f"error: {_sentence(message)} [{code}]", "bold red")
    if remedy:
        note(f"  try: {_sentence(remedy)}")


def _is_for_typer(error: Exception) -> bool:
    """Wrong usage, and a command that has said all there is to say."""
    return type(error).__module__.split(".")[0] in {"typer", "click"}


def _cause(error: BaseException) -> BaseException:
    """The first of what several tasks raised at once."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _explain(error: BaseException) -> tuple[str, str, str]:
    if isinstance(error, Refused):
        explanation = EXPLANATIONS[error.code]
        return error.code, error.detail or explanation.message, explanation.remedy
    if isinstance(error, Explained):
        remedy = _REMEDIES.get(error.code, error.remedy)
        return error.code, str(error), remedy
    if isinstance(error, OSError):
        return _explain_system(error)
    remedy = f"This is a fault in Muster: please report it, with what {DEBUG}=1 shows."
    return "internal_error", f"{type(error).__name__}: {error}", remedy


def _explain_system(error: OSError) -> tuple[str, str, str]:
    where = f"{error.filename}: " if error.filename else ""
    message = f"{where}{error.strerror or error}"
    if isinstance(error, PermissionError) and Path(error.filename or "").name == SETTINGS_FILE:
        return "settings_unreadable", message, "Run as the service's user or root."
    remedy = "Check the name, who may use it, and that the disk isn't full."
    return "system_error", message, remedy


def _sentence(text: str) -> str:
    """With a capital, unless it begins with a file's or a field's name, and a full stop."""
    text = text.strip()
    if text.split(" ", 1)[0].isalpha():
        text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?", "…")) else f"{text}."
