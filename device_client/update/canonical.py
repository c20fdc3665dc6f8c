"""OLPC canonical JSON: the one form of a JSON value that TUF signs and hashes."""

from collections.abc import Iterator

from device_client.update.codes import UpdateCode, UpdateRefused


def encode(value: object) -> bytes:
    """The value without white space, its keys in order, only quotes and backslashes escaped.

    Raises:
        UpdateRefused: METADATA_MALFORMED; it holds a number with a fraction, or no Unicode text.
    """
    try:
        return "".join(_parts(value)).encode()
    except (UnicodeEncodeError, RecursionError) as error:
        raise UpdateRefused(UpdateCode.METADATA_MALFORMED, f"No canonical form: {error}") from error


def _parts(value: object) -> Iterator[str]:
    match value:
        case str():
            yield _quoted(value)
        case None:
            yield "null"
        case bool():
            yield "true" if value else "false"
        case int():
            yield str(value)
        case list():
            yield "["
            for index, item in enumerate(value):
                yield "," if index else ""
                yield from _parts(item)
            yield "]"
        case dict():
            yield "{"
            for index, name in enumerate(sorted(value)):
                yield f"{',' if index else ''}{_quoted(name)}:"
                yield from _parts(value[name])
            yield "}"
        case _:
            raise UpdateRefused(
                UpdateCode.METADATA_MALFORMED, f"Signed data can't hold a {type(value).__name__}."
            )


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
