"""So many requests a second are begun, all clients' together: the service has better to do.

Who comes too soon waits, unread, for its turn; that costs nothing but its place.
"""

import asyncio
from collections.abc import Callable, Hashable

from broker.core.rate_limit import TokenBuckets

_ALL = "all"


class Turns:
    """Bound to one event loop."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._bucket = TokenBuckets(per_second, burst, max_keys=1)
        self._waiting: dict[Hashable, Callable[[], None]] = {}
        self._timer: asyncio.TimerHandle | None = None

    def ask(self, who: Hashable, begin: Callable[[], None]) -> bool:
        """Whether it's the turn of `who` now; else `begin` is called when it is."""
        wait_s = self._bucket.take(_ALL, _now()) if not self._waiting else 0.0
        if not self._waiting and not wait_s:
            return True
        self._waiting[who] = begin
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._go_on)
        return False

    def leave(self, who: Hashable) -> None:
        """It waits no longer, if it did."""
        self._waiting.pop(who, None)

    def _go_on(self) -> None:
        self._timer = None
        while self._waiting:
            wait_s = self._bucket.take(_ALL, _now())
            if wait_s:
                self._timer = asyncio.get_running_loop().call_later(wait_s, self._go_on)
                return
            self._waiting.pop(next(iter(self._waiting)))()


def _now() -> float:
    return asyncio.get_running_loop().time()
