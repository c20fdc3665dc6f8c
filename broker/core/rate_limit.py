"""Token buckets: how often each of many keys may do something."""

from collections import OrderedDict


class TokenBuckets:
    """A bucket for each key; memory is bounded.

    When there are more than `max_keys` keys, the one that was used longest ago is forgotten, and
    so starts full again: keep `max_keys` well above what one bucket further out lets through.
    """

    def __init__(self, per_second: float, burst: int, max_keys: int = 10_000) -> None:
        self._per_second = per_second
        self._burst = float(burst)
        self._max_keys = max_keys
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Takes one token: 0.0 when there was one, else the seconds until there will be.

        Args:
            key: whose bucket.
            now: monotonic time in seconds.
        """
        tokens, filled_at = self._buckets.pop(key, (self._burst, now))
        tokens = min(self._burst, tokens + (now - filled_at) * self._per_second)
        wait = 0.0 if tokens >= 1.0 else (1.0 - tokens) / self._per_second
        self._buckets[key] = (tokens - 1.0 if wait == 0.0 else tokens, now)
        if len(self._buckets) > self._max_keys:
            self._buckets.popitem(last=False)
        return wait

    def __len__(self) -> int:
        return len(self._buckets)
