"""A command that has changed the registry rings, so that the service looks at once.

Nothing depends on it: whoever isn't heard, as from another machine, is noticed at the next look.
"""

import os
import select
import stat
from pathlib import Path
from typing import Final, Self

_RING: Final = b"!"
_MUCH: Final = 65_536


class Doorbell:
    """What the service waits at: a FIFO, since the name of a socket can't be long.

    Raises:
        OSError: it can't be made; say so and wait without one.
    """

    def __init__(self, path: Path) -> None:
        if not _is_fifo(path):
            path.unlink(missing_ok=True)
            os.mkfifo(path, 0o600)
        # For writing, too: without a writer a FIFO would be at its end all the time.
        self._descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._poll = select.poll()
        self._poll.register(self._descriptor, select.POLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def wait(self, seconds: float) -> None:
        """Returns when somebody rings, or the time is over. Blocks."""
        if self._poll.poll(seconds * 1000):
            os.read(self._descriptor, _MUCH)


def ring(path: Path) -> None:
    """Has the service look, if there is one that waits at this bell."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:  # nobody waits, or it's another's
        return
    try:
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            os.write(descriptor, _RING)
    except OSError:  # it has been rung often enough
        pass
    finally:
        os.close(descriptor)


def _is_fifo(path: Path) -> bool:
    try:
        return stat.S_ISFIFO(path.lstat().st_mode)
    except FileNotFoundError:
        return False
