"""How long to wait before the next try: exponential, with full jitter."""

from collections.abc import Callable


class Backoff:
    """Waiting times whose upper bound doubles from `base_s` to `cap_s`, each drawn evenly below it.

    Full jitter spreads a fleet that lost its broker at one instant over the whole interval, which
    a fixed wait with a little noise doesn't.
    """

    def __init__(self, base_s: float, cap_s: float, chance: Callable[[], float]) -> None:
        """`chance` gives evenly distributed numbers from 0 up to 1, like `random.random`."""
        self._base_s = base_s
        self._cap_s = cap_s
        self._chance = chance
        self._bound_s = base_s

    def next(self) -> float:
        """Seconds to wait before the next try."""
        bound_s = min(self._bound_s, self._cap_s)
        self._bound_s = min(bound_s * 2, self._cap_s)
        return bound_s * self._chance()

    def reset(self) -> None:
        """Begin again at `base_s`, after a success that lasted."""
        self._bound_s = self._base_s


def no_sooner_than(least_s: float, chance: Callable[[], float]) -> float:
    """Seconds to wait where somebody asked for `least_s`: never less, and up to a quarter more."""
    return least_s * (1 + chance() / 4)
