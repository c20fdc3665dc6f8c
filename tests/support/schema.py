"""As much of JSON Schema as the protocol's schemas use."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

_TYPES: Final[Mapping[str, type]] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "null": type(None),
}
_KNOWN: Final = {
    *("$ref", "anyOf", "type", "title", "description", "default", "examples", "format"),
    *("properties", "required", "propertyNames", "additionalProperties", "maxProperties"),
    *("items", "minItems", "maxItems"),
    *("pattern", "minLength", "maxLength", "minimum", "maximum", "enum"),
}


def fits(value: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    """Whether `value` is what `schema` describes; `schemas` are those that it may refer to.

    Raises:
        AssertionError: the schema uses a word that this doesn't know.
    """
    assert set(schema) <= _KNOWN, f"unknown words of JSON Schema: {set(schema) - _KNOWN}"
    if "$ref" in schema:
        return fits(value, schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return any(fits(value, option, schemas) for option in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    if not isinstance(value, _TYPES[schema["type"]]) or isinstance(value, bool):
        return False
    if isinstance(value, str):
        return _fits_text(value, schema)
    if isinstance(value, int):
        return bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))
    if isinstance(value, list):
        return _fits_list(value, schema, schemas)
    return not isinstance(value, dict) or _fits_object(value, schema, schemas)


def _fits_list(value: list[Any], schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> bool:
    length = len(value)
    return bool(
        schema.get("minItems", 0) <= length <= schema.get("maxItems", length)
        and all(fits(part, schema["items"], schemas) for part in value)
    )


def _fits_text(value: str, schema: Mapping[str, Any]) -> bool:
    if "pattern" in schema and not re.search(schema["pattern"].replace("$", r"\Z"), value):
        return False
    if schema.get("format") == "date-time" and not _is_moment(value):
        return False
    length = len(value)
    return bool(schema.get("minLength", 0) <= length <= schema.get("maxLength", length))


def _is_moment(value: str) -> bool:
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _fits_object(
    value: dict[str, Any], schema: Mapping[str, Any], schemas: Mapping[str, Any]
) -> bool:
    properties = schema.get("properties", {})
    rest = schema.get("additionalProperties")
    names = {"type": "string", **schema.get("propertyNames", {})}
    return (
        set(schema.get("required", ())) <= set(value)
        and len(value) <= schema.get("maxProperties", len(value))
        and all(fits(name, names, schemas) for name in value)
        and all(
            fits(value[name], properties[name], schemas) for name in properties if name in value
        )
        and (rest is None or all(fits(part, rest, schemas) for part in value.values()))
    )
