"""What is wrong with the settings, in sentences for the one who wrote them.

The library's own words name its types and its checks; nobody who edits muster.toml knows those.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from broker.settings import Settings

_SENTENCES: Final = {
    "missing": "is missing",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "string_type": "must be text, in quotes",
    "path_type": "must be a path, in quotes",
    "tuple_type": "must be a list, in brackets",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "enum": "must be {expected}",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_pattern_mismatch": "must be a URL, beginning with http:// or https://",
    "time_delta_type": 'must be a duration, such as "15m" or "90d"',
    "time_delta_parsing": 'must be a duration, such as "15m" or "90d"',
}


def sentences(error: ValidationError) -> str:
    """Each fault with the name of its setting, and never with its value."""
    faults = error.errors(include_input=False, include_url=False)
    return "; ".join(_sentence(fault["type"], fault["loc"], fault) for fault in faults)


def _sentence(kind: str, place: Sequence[int | str], fault: Mapping[str, Any]) -> str:
    name = ".".join(str(part) for part in place)
    context = fault.get("ctx", {})
    if kind == "extra_forbidden":
        return f"{name} isn't a setting{_suggestion(place)}"
    if kind == "value_error":  # one of our own checks, which says all there is to say
        said = str(context["error"])
        return f"{name}: {said}" if name and not said.startswith(name) else said
    if kind in _SENTENCES:
        return f"{name} {_SENTENCES[kind].format(**context)}"
    return f"{name or 'settings'}: {fault['msg']}"


def _suggestion(place: Sequence[int | str]) -> str:
    *path, last = (str(part) for part in place)
    known = _known(path)
    close = difflib.get_close_matches(last, known, n=1)
    if close:
        return f"; the closest is {'.'.join([*path, close[0]])}"
    return f"; known here: {', '.join(sorted(known))}" if known else ""


def _known(path: Sequence[str]) -> list[str]:
    """The names of a table's settings."""
    model: Any = Settings
    for part in path:
        field = model.model_fields.get(part)
        model = None if field is None else field.annotation
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
    return list(model.model_fields)
