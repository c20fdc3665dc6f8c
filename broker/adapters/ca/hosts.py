"""The host names and addresses that a broker's certificate carries."""

import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from broker.adapters.ca.errors import AuthorityCode, AuthorityError

_LOCAL: Final = ("localhost", "127.0.0.1", "::1")
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)\Z")
_MAX_NAME: Final = 253


def broker_hosts(given: Sequence[str]) -> list[str]:
    """`given`, this machine's names and the loopback's, each once.

    Raises:
        AuthorityError: HOST_INVALID when a given one is neither an address nor a DNS name in
            ASCII. Wildcards are neither: a certificate says which broker it is.
    """
    for host in given:
        if not is_host(host):
            raise AuthorityError(
                AuthorityCode.HOST_INVALID,
                f"{host!r} is neither a host name nor an IP address",
                "give it without scheme and port, e.g. `mqtt.example.org` or `192.0.2.7`",
            )
    machine = socket.gethostname()
    local = [*_LOCAL, machine] if is_host(machine) else list(_LOCAL)
    return list(dict.fromkeys([*given, *local]))


def is_host(text: str) -> bool:
    """Whether it is an IP address or a DNS name (RFC 1123, 2.1)."""
    try:
        return "%" not in str(ip_address(text))
    except ValueError:
        labels = text.split(".")
        return (
            len(text) <= _MAX_NAME
            and all(_LABEL.match(label) for label in labels)
            # What looks like an address and isn't one is a mistyped address.
            and not labels[-1].isdecimal()
        )
