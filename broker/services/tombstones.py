"""The end of tombstones: what was taken back is forgotten for good, some time after the broker did.

Mosquitto writes its memory to the disk every half hour at most. One that is killed comes back with
what it had written, so tombstones stay for longer than that; who comes back with an older memory
yet is cleared (`retained`).
"""

from collections import deque
from collections.abc import Callable
from typing import Final

from broker.ports.clock import Clock
from broker.ports.registry import Registry
from broker.protocol.topics import PREFIX

_KEEP_S: Final = 2 * 3600.0
_LOOK_EVERY_S: Final = 60.0
_BATCH: Final = 500
_DEVICES: Final = f"{PREFIX}/device/"


class Tombstones:
    """Drops those that the broker was told of long enough ago; the service's chore.

    Args:
        told: up to which stamp the broker has everything now, 0 when nobody knows.
    """

    def __init__(self, registry: Registry, told: Callable[[], int], clock: Clock) -> None:
        self._registry = registry
        self._told = told
        self._clock = clock
        self._seen: deque[tuple[float, int]] = deque()

    async def drop(self) -> bool:
        """Drops the next ones; whether there may be more. A restart begins to count anew.

        Raises:
            RegistryError: calling again tries again.
        """
        now_s, told = self._clock.monotonic(), self._told()
        if not self._seen or now_s - self._seen[-1][0] >= _LOOK_EVERY_S:
            self._seen.append((now_s, told))
        while len(self._seen) > 1 and now_s - self._seen[1][0] >= _KEEP_S:
            self._seen.popleft()
        since_s, long_told = self._seen[0]
        # A broker that came back with less than it had has to be told again first.
        floor = min(told, long_told)
        if now_s - since_s < _KEEP_S or not floor:
            return False
        dropped = await self._registry.write(lambda tx: tx.drop_tombstones(_DEVICES, floor, _BATCH))
        return dropped == _BATCH
