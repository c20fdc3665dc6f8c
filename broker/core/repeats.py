"""Folding the same refusal, over and over, into one line of the audit log.

Without it whoever may publish could fill the disk with events.
"""

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

KeyT = TypeVar("KeyT", bound=Hashable)


@dataclass
class _Window:
    opened_at: float
    unlogged: int


class Repeats(Generic[KeyT]):
    """Says of each happening whether it is to be logged at once; counts the others.

    The first of a kind is logged; what follows within `window_s` is counted and comes out of
    `closed` once the window is over. Beyond `max_keys` kinds at once nothing new is logged, only
    counted in `overflowed`: the log stays bounded whatever is thrown at it.
    """

    def __init__(self, window_s: float, max_keys: int = 10_000) -> None:
        self._window_s = window_s
        self._max_keys = max_keys
        self._windows: OrderedDict[KeyT, _Window] = OrderedDict()
        self.overflowed = 0

    def is_first(self, key: KeyT, now: float) -> bool:
        """Counts one happening; whether it opens a window and so is to be logged."""
        window = self._windows.get(key)
        if window is not None and now - window.opened_at < self._window_s:
            window.unlogged += 1
            return False
        if window is None and len(self._windows) >= self._max_keys:
            self.overflowed += 1
            return False
        unlogged = window.unlogged if window else 0
        self._windows[key] = _Window(now, unlogged)
        self._windows.move_to_end(key)
        return True

    def forget(self, key: KeyT) -> None:
        """Takes back that the last happening was logged, when it couldn't be after all."""
        self._windows.pop(key, None)

    def closed(self, now: float) -> Iterator[tuple[KeyT, int]]:
        """Takes out the windows that are over: each key with how many of it weren't logged."""
        while self._windows:
            key, window = next(iter(self._windows.items()))
            if now - window.opened_at < self._window_s:
                return
            del self._windows[key]
            if window.unlogged:
                yield key, window.unlogged

    def take_overflowed(self) -> int:
        """How many were neither logged nor counted by kind since this was asked last."""
        taken, self.overflowed = self.overflowed, 0
        return taken

    def __contains__(self, key: KeyT) -> bool:
        return key in self._windows

    def __len__(self) -> int:
        return len(self._windows)
