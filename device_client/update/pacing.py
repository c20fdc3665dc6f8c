"""How often news is followed: each assignment and each state of the repository is written down, and
flash wears out. Whoever has the service's keys can make news without end.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Final

_AT_ONCE: Final = 60.0
_EVERY_S: Final = 600.0


class Pacing:
    """So much news at once, and then one in ten minutes; a fleet that is well has a few a day."""

    def __init__(self, elapsed: Callable[[], float] = time.monotonic) -> None:
        """`elapsed` gives seconds."""
        self._elapsed = elapsed
        self._left = _AT_ONCE
        self._since = elapsed()
        self._followed: dict[str, bytes] = {}

    async def turn(self, known: Mapping[str, bytes]) -> None:
        """Returns when it's time to follow what is known, by topic.

        What was followed before may be followed again at once: so a connection that comes and goes
        takes nothing from an update that is under way. Who calls it off hasn't had a turn.
        """
        if all(self._followed.get(topic) == payload for topic, payload in known.items()):
            return
        await asyncio.sleep(self._missing_s())
        self._missing_s()
        self._left -= 1
        self._followed.update(known)

    def _missing_s(self) -> float:
        """How long until there is a turn, by what has come to it since the last look."""
        now = self._elapsed()
        self._left = min(_AT_ONCE, self._left + (now - self._since) / _EVERY_S)
        self._since = now
        return max(0.0, (1 - self._left) * _EVERY_S)
