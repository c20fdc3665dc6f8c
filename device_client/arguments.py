"""What the command line says.

argparse would do, but it and what it loads are 1 MB of memory, for as long as the agent lives.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from getopt import GetoptError, gnu_getopt
from pathlib import Path
from typing import Any, Final, NoReturn

from device_client.keys import KeyType
from device_client.settings import default_state_directory

MISUSED: Final = 2
"""The exit status for a command line that can't be understood."""

_HELP: Final = """\
usage: muster-device COMMAND [OPTION]...

The agent that makes this device a member of a fleet.

commands:
  claim                 become a member, then end
  renew                 replace the certificate now, while no agent runs
  run                   become a member and stay connected
  status                how far this device has come

options of every command:
  --state DIR           where keys and certificates are kept
                        (default: {state})
  -v, --verbose         say more on stderr
  -h, --help            show this

options of claim and run, remembered:
  --bundle FILE         the maker's claim bundle
  --serial TEXT         this device's serial number (default: what the hardware reports)
  --parameter NAME=VALUE
                        reported to the service for its name rule; may be repeated
  --key-type TYPE       of a new key: {key_types} (default: p256)
  --model NAME          what this device is; without it there are no updates
  --hw-rev NAME         its hardware revision
  --update-config FILE  its components and their slots, health check and restart
                        (docs/updates.md)
  --update-root FILE    the update repository's first root, in place of the claim bundle's

options of claim and renew:
  --timeout SECONDS     give up after so long; 0 is never (default: {timeout:g})

of claim alone:
  --no-wait             try once only

of status alone:
  --json                for programs
"""


class Command(StrEnum):
    """What to do."""

    CLAIM = "claim"
    RENEW = "renew"
    RUN = "run"
    STATUS = "status"


@dataclass(frozen=True, kw_only=True)
class Options:
    """A command and all that was said about it; none for what wasn't."""

    command: Command
    state: Path = field(default_factory=default_state_directory)
    verbose: bool = False
    bundle: Path | None = None
    serial: str | None = None
    parameter: tuple[tuple[str, str], ...] = ()
    key_type: KeyType | None = None
    model: str | None = None
    hw_rev: str | None = None
    update_config: Path | None = None
    update_root: Path | None = None
    timeout: float = 600.0
    """In seconds; 0 is never."""
    no_wait: bool = False
    json: bool = False


def parse(arguments: Sequence[str]) -> Options:
    """What `arguments` say, without the program's name.

    Raises:
        SystemExit: they ask for help, which was given, or can't be understood, which was said.
    """
    try:
        given, words = gnu_getopt(list(arguments), "hv", _long_options())
        if any(name in ("-h", "--help") for name, _ in given):
            _help()
        command = _command(words)
        return Options(command=command, **_values(command, given))
    except (GetoptError, ValueError) as error:
        print(f"muster-device: {error}\n  'muster-device --help' shows how.", file=sys.stderr)
        raise SystemExit(MISUSED) from error


def _help() -> NoReturn:
    print(
        _HELP.format(
            state=default_state_directory(),
            key_types=", ".join(KeyType),
            timeout=Options.timeout,
        ),
        end="",
    )
    raise SystemExit(0)


def _command(words: list[str]) -> Command:
    if len(words) == 1 and words[0] in list(Command):
        return Command(words[0])
    told = f", not {' '.join(words)!r}" if words else ""
    raise ValueError(f"the command is one of {', '.join(Command)}{told}")


def _values(command: Command, given: list[tuple[str, str]]) -> dict[str, Any]:
    """The fields of `Options` that were given; the last word counts."""
    values: dict[str, Any] = {}
    for option, text in given:
        name = "verbose" if option == "-v" else option.removeprefix("--")
        if name not in _EVERYWHERE | _ONLY[command]:
            raise ValueError(f"'{command}' has no option {option}")
        value = True if name in _FLAGS else _read(name, text)
        field_name = name.replace("-", "_")
        values[field_name] = (*values.get(field_name, ()), value) if name in _LISTS else value
    return values


def _read(name: str, text: str) -> Any:
    try:
        return _READERS[name](text)
    except ValueError as error:
        raise ValueError(f"--{name} {text}: {error}") from error


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError("it isn't NAME=VALUE")
    return name, value


def _long_options() -> list[str]:
    return ["help", *_FLAGS, *(f"{name}=" for name in _READERS)]


_READERS: Final[dict[str, Callable[[str], Any]]] = {
    "state": Path,
    "bundle": Path,
    "serial": str,
    "parameter": _parameter,
    "key-type": KeyType,
    "model": str,
    "hw-rev": str,
    "update-config": Path,
    "update-root": Path,
    "timeout": float,
}
_FLAGS: Final = ("verbose", "no-wait", "json")
_LISTS: Final = ("parameter",)
_EVERYWHERE: Final = {"state", "verbose"}
_REMEMBERED: Final = set(_READERS) - {"state", "timeout"}
_ONLY: Final = {
    Command.CLAIM: {*_REMEMBERED, "timeout", "no-wait"},
    Command.RENEW: {"timeout"},
    Command.RUN: _REMEMBERED,
    Command.STATUS: {"json"},
}
