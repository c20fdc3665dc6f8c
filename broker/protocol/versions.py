"""Versions of images and their order.

One to four numbers, those that are missing being 0, and SemVer 2.0's pre-release. Numbers are
compared as numbers, also with zeros in front: makers count in months (`2026.06`).
"""

import re
from dataclasses import dataclass
from typing import Final

_FORM: Final = re.compile(r"^([0-9]+(?:\.[0-9]+){0,3})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?\Z")
_LONGEST: Final = 64
_NUMBERS: Final = 4

_Identifier = tuple[int, int, str]
"""Numbers come before letters (SemVer 2.0, 11.4.3), so that comes first."""


@dataclass(frozen=True, order=True)
class Version:
    """A version; compares by SemVer 2.0's precedence (11), where texts that differ may be equal:
    `1.2` is `1.2.0`."""

    numbers: tuple[int, ...]
    """Always four."""
    is_release: bool
    """A pre-release comes before its release."""
    pre_release: tuple[_Identifier, ...]


def parse_version(text: str) -> Version:
    """The version that `text` says; see `broker.protocol.updates.VersionText`.

    Raises:
        ValueError: it says none; the message names the form.
    """
    found = _FORM.match(text) if len(text) <= _LONGEST else None
    if found is None:
        shown = text[:_LONGEST]
        raise ValueError(f"{shown!r} isn't a version; write for example 1.4.0 or 2.0-rc.1")
    given = tuple(int(number) for number in found[1].split("."))
    numbers = given + (0,) * (_NUMBERS - len(given))
    if found[2] is None:
        return Version(numbers, is_release=True, pre_release=())
    identifiers = tuple(_identifier(part) for part in found[2].split("."))
    return Version(numbers, is_release=False, pre_release=identifiers)


def _identifier(part: str) -> _Identifier:
    return (0, int(part), "") if part.isdigit() else (1, 0, part)
