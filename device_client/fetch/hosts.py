"""Which hosts are asked for images: those that the maker named, and no others.

An assignment names sources. What they send is checked, but to ask at all is an act of this device
in its own network; so a stolen director's key mustn't choose whom it asks.
"""

import re
from collections.abc import Iterable
from typing import Final
from urllib.parse import SplitResult

from device_client.fetch.errors import SourceNotAllowed

_LETTERS: Final = re.compile(r"[\w.:-]+\Z")
"""Of names and addresses. Resolvers end what they're given at others, such as NUL or a space: what
comes after them would be any name that an asterisk stands for."""


def check_host(url: SplitResult, allowed: Iterable[str]) -> None:
    """Returns when the URL's host is one of these. Asks nobody, DNS neither.

    Args:
        allowed: names or addresses, as they stand in URLs; `*.` before a name stands for all below
            it, and not for the name itself.

    Raises:
        SourceNotAllowed: it isn't.
    """
    host = _normal(url.hostname or "")
    if _LETTERS.match(host) and any(_covers(_normal(pattern), host) for pattern in allowed):
        return
    raise SourceNotAllowed(
        f"This device doesn't ask {host[:253]!r} for images.",
        "Name the host in its setting 'update_hosts', if images are to come from there.",
    )


def _covers(pattern: str, host: str) -> bool:
    if pattern.startswith("*."):
        return len(host) > len(pattern) - 1 and host.endswith(pattern[1:])
    return host == pattern


def _normal(host: str) -> str:
    return host.lower().rstrip(".")
