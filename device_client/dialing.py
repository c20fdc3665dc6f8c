"""TCP to a host that is known by its name.

asyncio's own way would do, but Python loads 0.4 MB of Unicode tables to find out that a name in
ASCII is one. Here it is bytes from the start, which the resolver and TLS take as well.
"""

import asyncio
import socket
from collections import Counter
from typing import Any, Final

_NEXT_ADDRESS_S: Final = 0.25
"""When to try a host's next address beside the one that doesn't answer (RFC 8305, 5)."""

Place = tuple[socket.AddressFamily, Any]
"""An address, and what kind it is of."""


def in_ascii(host: str) -> bytes:
    """The name as the resolver and certificates have it (RFC 5891).

    Raises:
        ValueError: it can't be a host's name.
    """
    return host.encode("ascii" if host.isascii() else "idna")


async def dial(host: str, port: int) -> socket.socket:
    """A connected socket to the first of the host's addresses that answers.

    Raises:
        OSError: the name is unknown, or no address answers; the last reason.
        ValueError: it can't be a host's name.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(in_ascii(host), port, type=socket.SOCK_STREAM)
    return await _first_of(_by_turns([(one[0], one[4]) for one in found]))


def _by_turns(places: list[Place]) -> list[Place]:
    """IPv6 and IPv4 alternate, as one of them may lead nowhere (RFC 8305, 4)."""
    seen: Counter[socket.AddressFamily] = Counter()
    ranked = []
    for place in places:
        ranked.append((seen[place[0]], place))
        seen[place[0]] += 1
    return [place for _, place in sorted(ranked, key=lambda each: each[0])]


async def _first_of(places: list[Place]) -> socket.socket:
    """Tries one after the other, the next when the last has failed or takes its time."""
    waiting = list(reversed(places))
    trying: set[asyncio.Task[socket.socket]] = set()
    failure = OSError("it has no address")
    try:
        while waiting or trying:
            if waiting:
                trying.add(asyncio.create_task(_reached(waiting.pop())))
            patience_s = _NEXT_ADDRESS_S if waiting else None
            done, _ = await asyncio.wait(
                trying, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED
            )
            for attempt in done:
                trying.remove(attempt)
                try:
                    return attempt.result()
                except OSError as error:
                    failure = error
        raise failure
    finally:
        await _abandon(trying)


async def _reached(place: Place) -> socket.socket:
    family, address = place
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, address)
    except BaseException:
        connection.close()
        raise
    return connection


async def _abandon(trying: set["asyncio.Task[socket.socket]"]) -> None:
    """Whoever else has got through comes too late."""
    for attempt in trying:
        attempt.cancel()
    for late in await asyncio.gather(*trying, return_exceptions=True):
        if isinstance(late, socket.socket):
            late.close()
