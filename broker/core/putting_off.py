"""Who asks too often is told to wait, but no more often than it takes to hear of it."""

from collections import OrderedDict
from math import ceil
from typing import Final

from broker.protocol.codes import Code, Refused

_SILENCE_S: Final = 9.0
"""An answer may get lost, and a client repeats its request after ten seconds (docs/protocol.md): by
then it's told again, however long it has to wait."""


class PutOff(Refused):
    """RATE_LIMITED by a count of requests, before anything of this one was read. Without `is_told`
    its sender was told a moment ago."""

    def __init__(self, wait_s: float, *, is_told: bool) -> None:
        super().__init__(Code.RATE_LIMITED, retry_after_s=ceil(wait_s))
        self.is_told = is_told


class OncePerWait:
    """Says of each client that is put off whether it's to be told; memory is bounded.

    When there are more than `max_keys` clients, the one that was told longest ago is forgotten, and
    told again.
    """

    def __init__(self, max_keys: int = 10_000) -> None:
        self._max_keys = max_keys
        self._silent_until: OrderedDict[str, float] = OrderedDict()

    def is_due(self, key: str, wait_s: float, now: float) -> bool:
        """Whether `key`, which is to wait for so long, is told now.

        Args:
            key: which client.
            wait_s: what it would be told, in seconds.
            now: monotonic time in seconds.
        """
        if now < self._silent_until.get(key, now):
            return False
        self._silent_until[key] = now + min(wait_s, _SILENCE_S)
        self._silent_until.move_to_end(key)
        if len(self._silent_until) > self._max_keys:
            self._silent_until.popitem(last=False)
        return True

    def __len__(self) -> int:
        return len(self._silent_until)
