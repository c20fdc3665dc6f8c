"""Sources that gave a whole image which then wasn't the signed one, most likely.

Fetching can't tell: the hash is the caller's. But who asks for an image anew that was complete once
had no use for what came. Without this memory one hostile source, first in an assignment, would be
the first again at every try.
"""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Final

_IMAGES: Final = 16


class Suspects:
    """Remembers by an image's SHA-256; the newest images only, and nothing over a restart."""

    def __init__(self) -> None:
        self._givers: OrderedDict[str, frozenset[str]] = OrderedDict()

    def of(self, sha256: str) -> frozenset[str]:
        """The sources that took part when the image was complete, in all times that it was."""
        return self._givers.get(sha256, frozenset())

    def completed(self, sha256: str, givers: Iterable[str]) -> None:
        """The image is complete, with bytes from these."""
        self._givers[sha256] = self.of(sha256) | frozenset(givers)
        self._givers.move_to_end(sha256)
        if len(self._givers) > _IMAGES:
            self._givers.popitem(last=False)
