"""How a device's name follows from what it reports, by its group's template.

A template is text with fields in braces: `thermo-{serial}`, `{model}-{serial}`. `serial` is the
reported serial number, every other field a reported parameter. Nothing is cleaned up on the way:
a name that isn't valid as it comes out is refused, since two devices must never be cleaned up into
one name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from broker.protocol.codes import Code, Refused
from broker.protocol.names import DeviceId, SerialNumber, is_issuable

_PIECE = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}|([A-Za-z0-9_-]+)")
_SERIAL = "serial"


@dataclass(frozen=True)
class NameTemplate:
    """A template that was checked. `pieces` are (field or none, literal or none), in order."""

    pieces: tuple[tuple[str | None, str | None], ...]


@lru_cache(maxsize=1024)
def parse_template(text: str) -> NameTemplate:
    """The template that `text` spells.

    Raises:
        ValueError: it isn't one, or it lacks `{serial}` and so can't tell two devices apart.
    """
    pieces: list[tuple[str | None, str | None]] = []
    position = 0
    while position < len(text):
        found = _PIECE.match(text, position)
        if found is None:
            raise ValueError(
                f"{text!r} isn't a name template: at {text[position:]!r} expected a field such as "
                "{serial}, or letters, digits, '_' and '-'"
            )
        pieces.append((found[1], found[2]))
        position = found.end()
    if not any(field == _SERIAL for field, _ in pieces):
        raise ValueError(f"{text!r} must hold the field {{serial}}: each device needs its own name")
    return NameTemplate(tuple(pieces))


def derive_name(
    template: NameTemplate, serial: SerialNumber, parameters: Mapping[str, str]
) -> DeviceId:
    """The device's name.

    Raises:
        Refused: PARAMETER_MISSING or NAME_INVALID.
    """
    name = "".join(
        _value(field, serial, parameters) if field is not None else literal or ""
        for field, literal in template.pieces
    )
    if not is_issuable(name):
        raise Refused(Code.NAME_INVALID, f"The group's rule makes {name[:80]!r} of this request.")
    return DeviceId(name)


def _value(field: str, serial: SerialNumber, parameters: Mapping[str, str]) -> str:
    if field == _SERIAL:
        return serial
    try:
        return parameters[field]
    except KeyError:
        raise Refused(Code.PARAMETER_MISSING, f"The parameter {field!r} wasn't reported.") from None
